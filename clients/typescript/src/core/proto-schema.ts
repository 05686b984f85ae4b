// The messages of proto/tidings/v1 as tables, in the words of JSON.
//
// Fields stand as they are written: by their numbers, and those of a `oneof` at the place of its first.
//
// A field is `NUMBER PRESENCE NAME : KIND`. Presence: `!` always there in JSON, absent on the wire where it is the
// default; `-` absent in both where it is the default; `?` absent where it was not given; `*` repeated.
// Kinds: u whole number, s text, b true or false, t time, d bytes of data, j one JSON value as bytes, h map of texts,
// p place, o list of offsets in a message, a attempts; a list of names is an enum; else the name of a message.

export type Presence = '!' | '-' | '?' | '*'

export interface Field {
  readonly number: number
  readonly presence: Presence
  readonly name: string
  readonly kind: string
  readonly names: readonly string[] | undefined
}

export interface Table {
  readonly fields: readonly Field[]
  readonly byNumber: ReadonlyMap<number, Field>
}

const PRIORITY = 'normal,low,high,urgent'
const CODE =
  ',invalid_argument,unauthenticated,permission_denied,not_found,conflict,offset_gone,too_large,unsupported_media_type,rate_limited,unavailable,internal'

const MESSAGES: Record<string, string> = {
  Event: `1!offset:u 2!topic:s 3!id:s 4!time:t 5?key:s 6!type:s 7!source:s 8?datacontenttype:s 9?data:d 10-priority:${PRIORITY} 11?expires:t 12?correlation:s 13-headers:h`,
  Publish: `2!topic:s 3?id:s 5?key:s 6?type:s 7?source:s 8?datacontenttype:s 9?data:d 10-priority:${PRIORITY} 11?expires:t 14?ttl_ms:u 12?correlation:s 13-headers:h 15?expect_last:u 16?deliver_at:t 17-receipts:b`,
  Request:
    '1?id:u 2?connect:Connect 3?publish:Publish 4?publish_batch:PublishBatch 5?subscribe:Subscribe 6?ack:Ack 7?nack:Nack 8?unsubscribe:Unsubscribe 9?refresh:Refresh 10?presence:Topic 11?receipts:Offset 12?ping:Empty 13?cancel:Offset 14-follows:b',
  Connect: '1?token:s 2?client:s 3*compress:s',
  PublishBatch: '1*events:Publish',
  Subscribe: `1*filters:s 2?after:p 3?since:t 4?log:s 5?durable:s 6?start_at:now,first 7?start_after:p 8?start_since:t 9-last_per_key:b 10*types:s 11?min_priority:${PRIORITY} 12*content_types:s 13-mode:exclusive,shared,mirror 14-order:log,priority 15?max_in_flight:u 16?ack_wait_ms:u 17-max_deliveries:u 18*backoff_ms:u 19-conflate_ms:u 20-linger_ms:u 21?batch_max:u 22-on_gap:skip,error 23?presence:Presence 24-headers:h 25-partition_by:nothing,key 26-idle_expiry_ms:u 27-max_bytes_per_second:u 28?max_data_bytes:u 29?lost_reader:s`,
  Place: '1!cursor:u 2?log:s',
  Presence: '1?data:j',
  Ack: '1?subscription:u 2?offset:u 3?offsets:o 4?log:s',
  Offsets: '1*offsets:u',
  Nack: '1?subscription:u 2*offsets:u 3?delay_ms:u 4?reason:s 5?log:s',
  Unsubscribe: '1?subscription:u',
  Refresh: '1?token:s',
  Topic: '1!topic:s',
  Offset: '1!offset:u',
  Empty: '',
  ServerMessage:
    '1?reply:u 2?events:Events 3?connected:Connected 4?published:Published 5?published_batch:PublishedBatch 6?subscribed:Subscribed 7?acked:Acked 8?nacked:Subscription 9?unsubscribed:Subscription 10?refreshed:Refreshed 11?receipts:Receipts 12?pong:Empty 13?error:Error 14?caught_up:CaughtUp 15?gap:Gap 16?superseded:Subscription 17?token_expiring:TokenExpiring 18?goodbye:Goodbye 19?presence:Members 20?scheduled:Published 21?cancelled:Offset',
  Events: '1!subscription:u 2?after:u 3?cursor:u 4*events:Event 5?attempts:a',
  Batch: '4*events:Event',
  Attempt: '1!offset:u 2!deliveries:u',
  Connected:
    '1!session:s 2!subject:s 3!log:s 4!first:u 5!last:u 6!ping_interval_ms:u 7!max_message_bytes:u 8?token_expires:t 9?compress:s 10!server:s',
  Published: '1!offset:u 2!id:s 3-duplicate:b',
  PublishedBatch: '1*results:Published',
  Subscribed: '1!subscription:u 2?durable:s 3!cursor:u 4?last_acked:u',
  Acked: '1?subscription:u 2!cursor:u',
  Subscription: '1?subscription:u',
  Refreshed: '1?token_expires:t',
  Members: '1!topic:s 2*members:Member',
  Member: '1!subject:s 2!session:s 3!since:t 4?data:j',
  Receipts: '1!offset:u 2*receipts:Receipt',
  Receipt: '1!subscription:s 2!state:,pending,in_flight,acked,skipped,dead',
  Error: `1!code:${CODE} 2!message:s 3!retryable:b 4?retry_after_ms:u 5?first:u 6?last:u 7?log:s`,
  CaughtUp: '1!subscription:u 2!cursor:u',
  Gap: '1?subscription:u 2!requested:u 3!first:u 4!last:u 5!log:s 6!reason:,retention,erased,log_changed,corrupt',
  TokenExpiring: '1!in_ms:u',
  Goodbye: '1!code:s 2!reconnect_after_ms:u',
}

/** Lists that JSON has also where they are empty. */
export const KEPT_EMPTY: ReadonlySet<string> = new Set(['events', 'results', 'members', 'receipts'])

const tables = new Map<string, Table>()

export function tableOf(name: string): Table {
  const known = tables.get(name)
  if (known) return known
  const fields = [...(MESSAGES[name] ?? '').matchAll(/(\d+)([!?*-])(\w+):(\S*)/g)].map(
    ([, number, presence, field, kind = '']): Field => ({
      number: Number(number),
      presence: presence as Presence,
      name: field ?? '',
      kind,
      names: kind.includes(',') ? kind.split(',') : undefined,
    }),
  )
  const table = { fields, byNumber: new Map(fields.map((field) => [field.number, field])) }
  tables.set(name, table)
  return table
}

export const REQUEST = 'Request'
export const SERVER_MESSAGE = 'ServerMessage'
export const BATCH = 'Batch'
