import type { Clock } from '../time/clock.ts'
import type { Priority } from '../ledger/demand.ts'
import type { Grant, Ledger } from '../ledger/ledger.ts'
import type { QueuedClient } from './admission.ts'
import type { ClassCapacity } from './capacity.ts'
import { ClientQueues } from './client-queues.ts'
import { FairScheduler } from './fair-scheduler.ts'
import { VirtualService } from './fair-share.ts'
import { AvailabilityForecast } from './forecast.ts'
import { Peers } from './peers.ts'
import { RecentlyServed } from './recently-served.ts'
import { Rivals } from './rivals.ts'

export interface AdmissionQueueOptions {
  readonly ledger: Ledger
  readonly clock: Clock
  /** The name of the queue, which is the same at all gateways. */
  readonly name: string
  /** The partition of the ledger whose quota the calls wait for. */
  readonly partition: string
  /** Shared by all queues of the same account and class. */
  readonly capacity: ClassCapacity
}

/** What one admission queue knows: its entrance (`AdmissionQueue`) and its `Dispatcher` share it. */
export class QueueState {
  readonly ledger: Ledger
  readonly clock: Clock
  readonly name: string
  readonly capacity: ClassCapacity
  readonly clientQueues: ClientQueues
  readonly forecast: AvailabilityForecast
  readonly peers: Peers
  /** With the other queues at this gateway that wait for the same quota. */
  readonly rivals: Rivals
  readonly recentlyServed = new RecentlyServed()
  virtualService = new VirtualService()

  /** `onPeers` is called whenever something was heard of the other gateways. */
  constructor({ ledger, clock, name, partition, capacity }: AdmissionQueueOptions, onPeers: () => void) {
    this.ledger = ledger
    this.clock = clock
    this.name = name
    this.capacity = capacity
    this.clientQueues = new ClientQueues(clock, capacity)
    this.forecast = new AvailabilityForecast(clock)
    this.rivals = Rivals.of(ledger, partition)
    this.peers = new Peers({
      ledger,
      clock,
      partition,
      queue: name,
      demands: () => this.clientQueues.demands(),
      onHeard: (peerDemand, granted) => {
        this.forecast.others(granted)
        if (peerDemand !== undefined) this.virtualService = new VirtualService(peerDemand.virtualService)
        onPeers()
      },
    })
  }

  /** Calls that wait here, claims included. */
  get waiting(): number {
    return this.clientQueues.size
  }

  /** The order of all that wait now. A `newcomer` is counted among the clients although no call of it may wait yet. */
  scheduler(newcomer?: { client: QueuedClient; priority: Priority }): FairScheduler {
    const { clock, clientQueues, virtualService, peers } = this
    return new FairScheduler(
      {
        now: clock.now(),
        queues: clientQueues.byClient,
        virtualService: virtualService.costs,
        perSecond: clientQueues.perSecond,
        peerDemand: peers.peerDemand,
        told: peers.told,
        admittedElsewhere: peers.admitted,
      },
      newcomer,
    )
  }

  noteGrant(grant: Grant): void {
    this.peers.charged(grant)
    this.forecast.update(grant)
  }

  /** Gives a client that begins to wait the virtual service of those that have had least, unless it has had more. */
  beginService(client: string, leastService: number): void {
    const { has } = this.clientQueues
    if (!has(client)) this.virtualService.begin(client, leastService, has)
  }
}
