import { createRequire } from 'node:module'
import type * as IORedis from 'ioredis'
import { forgiveDroppedAnswers } from './dropped-answers.ts'
import { correctHandshake } from './handshake.ts'
import { type FailoverDetector, followSentinels, type SentinelConnector } from './sentinels.ts'
import { refuseUnaskedReplies, type ReplyHandler } from './unasked-replies.ts'

const require = createRequire(import.meta.url)
let client: typeof IORedis | undefined

/** The client library, loaded when it is first needed: a gateway with the embedded store should not hold it. */
export function ioredis(): typeof IORedis {
  if (client === undefined) {
    client = require('ioredis') as typeof IORedis
    correctHandshake(client.Redis)
    forgiveDroppedAnswers(client.Redis)
    const { default: handler } = require('ioredis/built/DataHandler.js') as { default: { prototype: ReplyHandler } }
    refuseUnaskedReplies(handler.prototype)
    const connectors = 'ioredis/built/connectors/SentinelConnector'
    const { default: connector } = require(`${connectors}/index.js`) as { default: { prototype: SentinelConnector } }
    const detectors = require(`${connectors}/FailoverDetector.js`) as {
      FailoverDetector: { prototype: FailoverDetector }
    }
    followSentinels(connector.prototype, detectors.FailoverDetector.prototype)
  }
  return client
}
