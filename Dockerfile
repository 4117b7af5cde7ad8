# The gateway, and with another command the sandbox upstream. Node runs the TypeScript in src/ as it is.
# Debian and not Alpine: glibc is what tests and benchmarks run on.
FROM node:26-trixie-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
# Optional is only the bundled Node binary, which this image has already. No package's install script runs.
RUN npm ci --omit=dev --omit=optional --ignore-scripts

# What Node compiles is kept in the image, because a container can't write it down: so a start takes half of the time, and less memory.
FROM node:26-trixie-slim AS compiled
WORKDIR /app
COPY --from=dependencies /app/node_modules ./node_modules
COPY package.json ./
COPY bin ./bin
COPY src ./src
COPY deploy/fill-compile-cache.ts ./deploy/
RUN install -d -o 1000 -g 1000 node_modules/.cache
USER 1000:1000
# With the option that bin/sluice.cjs gives the gateway, and without, as for `sluice top`.
RUN node --managed-zone-memory deploy/fill-compile-cache.ts && node deploy/fill-compile-cache.ts

FROM node:26-trixie-slim
ENV NODE_ENV=production
# There is no configuration inside: one has to be mounted here. Without it the gateway says so and ends.
ENV SLUICE_CONFIG=/etc/sluice/sluice.yaml
WORKDIR /app
# For `store: { kind: memory, dir: /var/lib/sluice }`. Mount a volume here to keep quotas over restarts.
RUN install -d -o 1000 -g 1000 -m 0700 /var/lib/sluice
# With the cache, which then belongs to root: whoever can write there decides what is run.
COPY --from=compiled /app/node_modules ./node_modules
# Says that the files in src/ are ES modules.
COPY package.json ./
COPY bin ./bin
COPY src ./src
# The user "node" of the base image, by number: Kubernetes can't tell of a name that it is not root.
USER 1000:1000
EXPOSE 8080 9090
# A config that moves the admin port needs another health check. Each check starts a Node, in which `fetch` would be one more part to
# load: `npm run bench:idle` prints what a check costs.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["node", "-e", "require('http').get('http://127.0.0.1:9090/healthz', ({ statusCode }) => process.exit(statusCode === 200 ? 0 : 1)).on('error', () => process.exit(1))"]
STOPSIGNAL SIGTERM
# No shell and no script between Docker and Node: Node itself gets the signal, and drains.
ENTRYPOINT []
CMD ["node", "bin/sluice.cjs", "start"]
