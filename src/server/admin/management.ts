import type { AllRequests } from '../../requests/peers.ts'
import type { AddressOf } from '../client-address.ts'
import type { Controls, Status } from './status.ts'
import type { AuditTrail } from '../../audit/audit.ts'
import type { Clock } from '../../time/clock.ts'
import type { GuessGuard } from '../../clients/guess-guard.ts'
import type { ManagedClients } from '../../clients/managed.ts'
import type { Config } from '../../schema/schema.ts'
import type { UsageReader } from '../../usage/keeper.ts'
import type { Logger } from '../../observe/log.ts'
import type { Records } from '../../records/records.ts'

/** What the admin port needs. */
export interface AdminParts {
  readonly status: Status
  readonly controls: Controls
  readonly management: Management
  readonly requests: Pick<AllRequests, 'ask'>
  readonly addressOf: AddressOf
}

/** What the admin API shows and changes. */
export interface Management {
  /** The configuration in force. */
  config(): Config
  readonly clients: ManagedClients
  readonly presets: Records<StoredPreset>
  readonly audit: AuditTrail
  /** What clients have used on each day. */
  readonly usage: UsageReader
  /** Blocks addresses that try many tokens. */
  readonly guard: GuessGuard
  readonly clock: Clock
  readonly logger: Logger
}

/** A copy of a built-in preset, which its owner may change. */
export interface StoredPreset {
  /** `preset_` and 32 hex digits. */
  readonly id: string
  readonly name: string
  readonly basedOn: string
  /** Settings of an upstream, as the configuration file has them. */
  readonly config: object
  /** Milliseconds since 1970. */
  readonly createdAt: number
}
