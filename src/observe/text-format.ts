/** The media type of the older format of Prometheus. */
export const TEXT_FORMAT = 'text/plain; version=0.0.4; charset=utf-8'

const COUNTER = /^# HELP (\S+) (.*)\n# TYPE \1 counter$/gm
/** A sample with an exemplar. A label's value may contain what begins an exemplar. */
const WITH_EXEMPLAR = /^([^\s{#]+(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})? \S+) # \{.*$/gm

/**
 * Makes the text format of OpenMetrics, for scrapers that know no other. It has no exemplars and no `# EOF`, and a counter is described
 * under the name of its sample, with `_total`. Each piece must have whole lines, and the description of a metric in one piece.
 */
export async function* inTextFormat(pieces: AsyncIterable<string>): AsyncGenerator<string, void, void> {
  for await (const piece of pieces) {
    if (piece === '# EOF\n') continue
    yield piece.replaceAll(COUNTER, '# HELP $1_total $2\n# TYPE $1_total counter').replaceAll(WITH_EXEMPLAR, '$1')
  }
}
