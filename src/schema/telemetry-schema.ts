import Type from 'typebox'
import { duration, flag, HEADER_NAMES, httpUrl, object, percent, record, secret } from './schema-parts.ts'

export const TelemetrySchema = object(
  {
    traces: Type.Optional(
      object(
        {
          endpoint: Type.Optional(
            httpUrl(
              'Where a collector receives OTLP over HTTP, such as http://127.0.0.1:4318; /v1/traces is added if the path does not end so. Default: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT, then http://localhost:4318.',
            ),
          ),
          headers: Type.Record(Type.String(), secret('Its value.'), {
            default: {},
            propertyNames: HEADER_NAMES,
            description: 'What goes along with every export, such as a key of the collector.',
          }),
          sample: percent(
            'Part of the calls that come without a trace whose spans are exported; a call that comes with one is sampled as its trace is.',
            '100%',
          ),
          failures: flag('Whether the spans of failed calls are exported besides, sampled or not.', true),
          attributes: record(
            Type.String(),
            'What is said of this gateway in every export, such as deployment.environment.name; service.name is sluice unless it is here or in OTEL_SERVICE_NAME.',
            { default: {} },
          ),
          timeout: duration('Longest time for an export, its retries included.', { default: '10s', max: '60s' }),
        },
        { description: 'Spans of calls and their attempts for OpenTelemetry. Without it there are none.' },
      ),
    ),
  },
  { default: {}, description: 'What is sent to other observers.' },
)
