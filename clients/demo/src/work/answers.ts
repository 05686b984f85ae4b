// What the assistant knows: a few texts, chosen by words of the question. It is a script, and says so.

const ANSWERS: readonly (readonly [RegExp, string])[] = [
  [
    /offset|order|log\b/i,
    'Every event has an offset: its place in one log. Offsets rise and are never used twice, and all windows see ' +
      'the same order. To know where a reader stands one number is enough. So replay, unread counts, receipts and a ' +
      'change of transport are all the same act: read on after that number.',
  ],
  [
    /kill|crash|restart|lost|lose|network|cut/i,
    'Kill the broker while I am writing this. What I have published and nobody has answered waits in the outbox of this ' +
      'window, in IndexedDB, under an id. When the broker is back it is sent again under that id, and stored once. ' +
      'The other window reads on after the last offset that it has seen. No word of this text is missing, and none ' +
      'is there twice.',
  ],
  [
    /transport|websocket|sse|poll|stream/i,
    'A subscription does not care how its events come. Choose another transport in the connection panel while I write: ' +
      'the client hangs up, tries the next way and reads on after its cursor. Over a WebSocket, an event stream or ' +
      'a long poll it is the same text, in the same order.',
  ],
  [
    /who|what are you|ai\b|model/i,
    'I am no model and no server: a few texts in this page, written word by word to a topic. Which window answers is for ' +
      'the broker to say: all assistants share one durable subscription. Close the window that writes this, and ' +
      'another one goes on in the middle of the sentence.',
  ],
]

const DEFAULT =
  'I am a script in one of your windows. Ask me about offsets, about a broker that is killed, about transports, or who I ' +
  'am. Each word you see is part of an event; the helper for streamed messages puts them together, in every window, also ' +
  'in one that you open later.'

export function answerTo(question: string): string {
  return ANSWERS.find(([words]) => words.test(question))?.[1] ?? DEFAULT
}
