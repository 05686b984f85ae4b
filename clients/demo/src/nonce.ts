/** What the broker's policy wants of style elements, and xterm makes some; none under `npm run dev`. */
export const nonce = document.querySelector<HTMLScriptElement>('script[nonce]')?.nonce
