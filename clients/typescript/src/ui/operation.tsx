// The progress of an operation.

import { type ReactElement, useId } from 'react'
import { useOperation } from '../react/index.js'
import { useLabels } from './labels.js'
import { outer, type PartProps, refused } from './part.js'
import { Kept, useTry } from './press.js'

/** What `OperationProgress` takes. */
export interface OperationProgressProps extends PartProps {
  /** The operation's id. */
  operation: string
  /** What it is called. Default what its producer calls it, else its id. */
  title?: string
  /** Whether it can be cancelled here. Default `true`. */
  cancellable?: boolean
}

/** A progress bar with words, indeterminate until it is known how much there is to do, and a button to cancel. */
export function OperationProgress(props: OperationProgressProps): ReactElement {
  const { status, done, of, ratio, message, title, cancelRequested, cancel, error } = useOperation(props.operation)
  const [failure, attempt] = useTry()
  const say = useLabels(props.labels)
  const name = useId()
  const running = status === 'running'
  const percent = ratio === undefined ? undefined : Math.round(ratio * 100)
  const words = say.status(running && cancelRequested ? 'cancelling' : status)
  const count = running && done !== undefined && of !== undefined ? say.progress(done, of) : undefined
  const bar = running || percent !== undefined
  return (
    <Kept {...outer('operation', props)} data-state={status}>
      <div className="tidings-operation-head">
        <strong id={name}>{props.title ?? title ?? props.operation}</strong>
        <span role="status">{words}</span>
      </div>
      {bar && (
        <div
          role="progressbar"
          className="tidings-bar"
          aria-labelledby={name}
          aria-valuemin={0}
          aria-valuemax={100}
          aria-valuenow={percent}
          aria-valuetext={[count, message].filter(Boolean).join(': ') || words}
        >
          <span style={percent === undefined ? undefined : { width: `${percent}%` }} />
        </div>
      )}
      <div className="tidings-operation-head">
        <span className="tidings-quiet">{[count, message].filter(Boolean).join(' · ')}</span>
        {running && (props.cancellable ?? true) && (
          <button type="button" aria-disabled={cancelRequested} onClick={() => cancelRequested || attempt(cancel())}>
            {say.cancel}
            <span className="tidings-hidden"> {props.title ?? title ?? props.operation}</span>
          </button>
        )}
      </div>
      {refused(error ?? (running ? failure : undefined), say)}
    </Kept>
  )
}
