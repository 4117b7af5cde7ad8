/** `node --import` this with MUTATION set: the named part of the ledger is left out of the source that is loaded. */
import { registerHooks } from 'node:module'

interface Edit {
  readonly file: string
  readonly from: string
  readonly to: string
}

export const MUTATIONS: Record<string, { readonly kind: string; readonly edits: readonly Edit[] }> = {
  'no new stamp when the response headers arrive': {
    kind: 'random',
    edits: [
      {
        file: 'ledger/counter.ts',
        from: 'this.addCommitted(now, at, units, laterMs)',
        to: 'this.restore(now, this.bucketOf(at), units)',
      },
    ],
  },
  'the wall clock tells how old charges are after a restart': {
    kind: 'clock set',
    edits: [{ file: 'ledger/embedded/tally.ts', from: 'return { leastMs: sinceMs,', to: 'return { leastMs: wallMs,' }],
  },
  'a gateway that runs counts by the wall clock': {
    kind: 'clock set',
    edits: [
      {
        file: 'ledger/embedded/memory-ledger.ts',
        from: 'const now = this.#clock.now()\n    if (this.#hasCalendar)',
        to: 'const now = this.#clock.wall()\n    if (this.#hasCalendar)',
      },
    ],
  },
  'no bucket more than the window has': {
    kind: 'random',
    edits: [
      { file: 'ledger/limit.ts', from: 'kept: BUCKETS }', to: 'kept: BUCKETS - 1 }' },
      { file: 'simulation/script-model.ts', from: 'rolling: BUCKETS,', to: 'rolling: BUCKETS - 1,' },
    ],
  },
  'only the first limit of a call is checked, all are charged': {
    kind: 'random',
    edits: [
      { file: 'ledger/embedded/memory-ledger.ts', from: 'if (counter.limit.isEnforced)', to: 'if (i === 0)' },
      {
        file: 'simulation/script-model.ts',
        from: 'if (used.units > 0) granted',
        to: 'if (used === all[0]) granted',
      },
    ],
  },
  'refused calls are charged to the first limit': {
    kind: 'saturated',
    edits: [
      {
        file: 'ledger/embedded/memory-ledger.ts',
        from: '} else granted = 0',
        to: '} else { granted = 0; tallies[0]!.counter.charge(now, now, 1) }',
      },
      {
        file: 'simulation/script-model.ts',
        from: 'if (granted > 0) {',
        to: 'if (granted < wanted && used === all[0]) counter.charge(now, now, 1)\nif (granted > 0) {',
      },
    ],
  },
  'gateways without Redis spend more than their leases and what they had': {
    kind: 'random',
    edits: [
      {
        file: 'ledger/redis/partition-state.ts',
        from: 'return state.cap - state.used(this.time(now))',
        to: 'return state.limit.requests - state.used(this.time(now))',
      },
    ],
  },
  'leases are granted without regard to those of others': {
    kind: 'random',
    edits: [
      {
        file: 'simulation/script-model.ts',
        from: 'used.others = Math.max(0, reserved - used.lease!)',
        to: 'used.others = 0',
      },
    ],
  },
  'a gateway that begins does not mind that others are silent': {
    kind: 'newcomer',
    edits: [{ file: 'simulation/script-model.ts', from: 'if (lasts > 1 &&', to: 'if (lasts > 1e9 &&' }],
  },
  'a partition that is not there is taken for a new one': {
    kind: 'keys lost',
    edits: [
      {
        file: 'ledger/redis/partition-calls.ts',
        from: 'return number === 1 && this.#isUsed === true ? 0 : number',
        to: 'return number',
      },
    ],
  },
  'calls in flight are not renewed': {
    kind: 'random',
    edits: [{ file: 'ledger/in-flight.ts', from: 'if (grant.isListed) this.#options.renew(grant)', to: '' }],
  },
}

/** Of limits that are priced by the answer: `node --import` them before priced.ts. */
export const PRICED_MUTATIONS: Record<string, { readonly edits: readonly Edit[] }> = {
  'reservations are not settled': {
    edits: [
      {
        file: 'queue/permit.ts',
        from: 'this.#issuer.ledger.commit(rest, units)',
        to: 'this.#issuer.ledger.commit(rest)',
      },
    ],
  },
  'what a call cost beyond its reservation is not charged': {
    edits: [
      { file: 'ledger/limit-table.ts', from: 'all[i]!.chargeMore(grant, -surplus, now, laterMs)', to: 'void laterMs' },
    ],
  },
  'what is left of a reservation is not given back': {
    edits: [
      {
        file: 'ledger/limit-table.ts',
        from: 'units[i]! - Math.max(0, surplus), now, laterMs',
        to: 'units[i]!, now, laterMs',
      },
    ],
  },
}

const PART_OF_HOME = "new URL('home.lua', import.meta.url), 'utf8')"

interface RegionMutation {
  /** A case that shows it. */
  readonly seed: number
  readonly edits: readonly Edit[]
}

/** Of `simulate-regions.ts`: the named part of home's script says something else. */
function ofHome(seed: number, from: string, to: string): RegionMutation {
  const mutated = `${PART_OF_HOME}.replace(${JSON.stringify(from)}, ${JSON.stringify(to)})`
  return { seed, edits: [{ file: 'regions/redis-home.ts', from: PART_OF_HOME, to: mutated }] }
}

export const REGION_MUTATIONS: Record<string, RegionMutation> = {
  'a bound falls before larger shares have ended': ofHome(
    17,
    'max(greatestTold(own, measuredAt), over)',
    'max(own.extra, over)',
  ),
  'a bound falls although more is used': ofHome(
    5,
    'max(greatestTold(own, measuredAt), over)',
    'greatestTold(own, measuredAt)',
  ),
  'a lost region is not waited for': ofHome(5, 'lease + MARGIN_MS + r.settle then', 'lease then'),
  'a home that has forgotten everything takes nobody to have a share': ofHome(
    28,
    '+ settle and pool or 0',
    '+ settle and 0 or 0',
  ),
  'a share does not end': {
    seed: 1,
    edits: [{ file: 'regions/region-shares.ts', from: 'until: askedAt + leaseMs,', to: 'until: Infinity,' }],
  },
}

const mutation = process.env['MUTATION']
if (mutation !== undefined) {
  const { edits } = (MUTATIONS[mutation] ?? PRICED_MUTATIONS[mutation] ?? REGION_MUTATIONS[mutation])!
  registerHooks({
    load(url, context, nextLoad) {
      const loaded = nextLoad(url, context)
      if (!edits.some(({ file }) => url.endsWith(file))) return loaded
      let source = Buffer.from(loaded.source as Uint8Array).toString()
      for (const { file, from, to } of edits) {
        if (!url.endsWith(file)) continue
        if (!source.includes(from)) throw new Error(`${file} has no "${from}" any more: bring the mutation up to date`)
        source = source.replace(from, to)
      }
      return { ...loaded, source }
    },
  })
}
