import { expect, test } from 'vitest'
import { contrast, legible, luminance } from '../../src/ui/palette.js'

const parts = (color: unknown) => (String(color).match(/\d+/g) ?? []).map(Number) as unknown as [number, number, number]

test.each(['rgb(255, 255, 255)', 'rgb(243, 245, 248)', 'rgb(35, 42, 51)', 'rgb(0, 0, 0)', 'rgb(120, 120, 120)'])(
  'every colour can be read on %s',
  (background) => {
    const theme = legible(background)
    expect(Object.keys(theme)).toHaveLength(16)
    // Of a grey in the middle no colour is far enough: then it is black or white.
    const most = Math.max(...[0, 1].map((end) => contrast(luminance(parts(background)), end)))
    for (const color of Object.values(theme)) {
      expect(contrast(luminance(parts(background)), luminance(parts(color)))).toBeGreaterThanOrEqual(
        Math.min(4.5, most),
      )
    }
  },
)

test('what can be read stays as it is, and what is no rgb() gives nothing', () => {
  expect(legible('rgb(0, 0, 0)')).toMatchObject({ yellow: 'rgb(196, 160, 0)', brightWhite: 'rgb(238, 238, 236)' })
  expect(legible('rgb(0, 0, 0)').black).not.toBe('rgb(46, 52, 54)')
  expect(legible('color(srgb 0 0 0)')).toEqual({})
})
