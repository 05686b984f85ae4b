// The sixteen colours of terminals, so that each can be read on a background.

import type { ITheme } from '@xterm/xterm'

type Color = readonly [red: number, green: number, blue: number]

/** Those that xterm has, by the names of its theme. */
const ANSI = {
  black: [0x2e, 0x34, 0x36],
  red: [0xcc, 0x00, 0x00],
  green: [0x4e, 0x9a, 0x06],
  yellow: [0xc4, 0xa0, 0x00],
  blue: [0x34, 0x65, 0xa4],
  magenta: [0x75, 0x50, 0x7b],
  cyan: [0x06, 0x98, 0x9a],
  white: [0xd3, 0xd7, 0xcf],
  brightBlack: [0x55, 0x57, 0x53],
  brightRed: [0xef, 0x29, 0x29],
  brightGreen: [0x8a, 0xe2, 0x34],
  brightYellow: [0xfc, 0xe9, 0x4f],
  brightBlue: [0x72, 0x9f, 0xcf],
  brightMagenta: [0xad, 0x7f, 0xa8],
  brightCyan: [0x34, 0xe2, 0xe2],
  brightWhite: [0xee, 0xee, 0xec],
} as const satisfies Record<string, Color>

/** The contrast that WCAG asks of text. */
const RATIO = 4.5

/** The colours, each as far towards black or white as it must be. None where the background is not in `rgb()`. */
export function legible(background: string): ITheme {
  const [red, green, blue] =
    background
      .match(/^rgb\((\d+), (\d+), (\d+)\)$/)
      ?.slice(1)
      .map(Number) ?? []
  if (red === undefined || green === undefined || blue === undefined) return {}
  const behind = luminance([red, green, blue])
  const end = contrast(behind, 0) > contrast(behind, 1) ? 0 : 255
  const fit = (color: Color): string => {
    for (let part = 0; ; part += 1 / 16) {
      const mixed = color.map((from) => Math.round(from + (end - from) * part)) as unknown as Color
      if (part >= 1 || contrast(behind, luminance(mixed)) >= RATIO) return `rgb(${mixed.join(', ')})`
    }
  }
  return Object.fromEntries(Object.entries(ANSI).map(([name, color]) => [name, fit(color)]))
}

/** How much light it gives, 0 to 1 (WCAG 2, relative luminance). */
export function luminance(color: Color): number {
  const [red, green, blue] = color.map((value) => {
    const part = value / 255
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
  }) as unknown as Color
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue
}

/** The contrast of two luminances, 1 to 21. */
export function contrast(one: number, other: number): number {
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)
}
