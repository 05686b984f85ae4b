/**
 * Which data travels on which topics: topics or filters, each with the type of its data.
 *
 * ```ts
 * interface Topics { 'tasks.*': Task; 'chat.>': Message }
 * const client = createClient<Topics>('https://tidings.example')
 * ```
 *
 * A type is a promise that the program makes; nothing is checked when events come.
 */
export type Schema = object

/** The schema of a client that was made without one: all data is `unknown`. */
// biome-ignore lint/complexity/noBannedTypes: a schema without topics is what is meant
export type AnySchema = {}

/** Whether two filters (a topic is one, too) can match the same topic. */
export type Overlaps<A extends string, B extends string> = A extends '>'
  ? true
  : B extends '>'
    ? true
    : A extends `${infer AHead}.${infer ARest}`
      ? B extends `${infer BHead}.${infer BRest}`
        ? TokensMeet<AHead, BHead> extends true
          ? Overlaps<ARest, BRest>
          : false
        : false
      : B extends `${string}.${string}`
        ? false
        : TokensMeet<A, B>

type TokensMeet<A extends string, B extends string> = A extends '*'
  ? true
  : B extends '*'
    ? true
    : A extends B
      ? true
      : false

type Found<S, F extends string> = { [P in keyof S & string]: Overlaps<P, F> extends true ? S[P] : never }[keyof S &
  string]

/**
 * The data that may come on `F`, a topic or a filter, by the schema `S`; `unknown` where the schema says nothing. Of
 * several topics it is the data of all of them.
 */
export type DataOf<S, F extends string> = string extends F
  ? unknown
  : F extends string
    ? [Found<S, F>] extends [never]
      ? unknown
      : Found<S, F>
    : never
