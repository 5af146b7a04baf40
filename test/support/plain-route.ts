/** What a route without anything special says about where its messages go. */
export const PLAIN_ROUTE = {
  routingKey: '{topic}',
  codec: 'escaped',
  exchange: { name: 'telemetry' },
  late: { exchange: null, keySuffix: '' },
} as const
