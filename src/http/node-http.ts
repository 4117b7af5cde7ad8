/**
 * What `node:http` exports, for use at run time. An `import` of that module asks for all its exports, one of which is WebSocket: Node
 * would load its own undici for it, which takes as much of a start as Fastify. The linter refuses such an import in `src`.
 */
export const { createServer, METHODS, request, ServerResponse, STATUS_CODES } = process.getBuiltinModule('node:http')
