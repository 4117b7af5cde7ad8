import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { onTestFinished } from 'vitest'
import WebSocket from 'ws'
import { newFolder } from './gateway.ts'

export interface Tab {
  open(url: string): Promise<void>
  /** Both resolve when the page has loaded. */
  reload(): Promise<void>
  /** The value of an expression in the page. */
  eval<T>(expression: string): Promise<T>
  /** What a reader sees. */
  text(): Promise<string>
  /** As a PNG. */
  screenshot(): Promise<Buffer>
  size(width: number, height: number, colors?: 'light' | 'dark'): Promise<void>
  withoutScripts(): Promise<void>
  /** What the page wrote to the console as an error, and what was kept from loading. */
  readonly errors: string[]
}

interface Message {
  readonly id?: number
  readonly method?: string
  readonly params?: Record<string, unknown>
  readonly result?: Record<string, unknown>
  readonly error?: { readonly message: string }
}

/** A tab of a real Chromium, ended when the test is finished. */
export async function openBrowser(): Promise<Tab> {
  const args = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run']
  const browser = spawn('chromium', [
    ...args,
    '--remote-debugging-port=0',
    `--user-data-dir=${newFolder()}`,
    'about:blank',
  ])
  onTestFinished(async () => {
    browser.kill('SIGKILL')
    if (browser.exitCode === null && browser.signalCode === null)
      await new Promise((resolve) => void browser.once('exit', resolve))
  })
  const port = await portOf(browser)
  const targets = (await (await fetch(`http://127.0.0.1:${port}/json`)).json()) as {
    type: string
    webSocketDebuggerUrl: string
  }[]
  const socket = new WebSocket(targets.find(({ type }) => type === 'page')!.webSocketDebuggerUrl)
  await new Promise((resolve, reject) => void socket.once('open', resolve).once('error', reject))
  onTestFinished(() => socket.terminate())
  return tabOf(socket)
}

async function portOf(browser: ChildProcess): Promise<string> {
  for await (const line of createInterface({ input: browser.stderr! })) {
    const [, port] = /^DevTools listening on ws:\/\/127\.0\.0\.1:(\d+)\//.exec(line) ?? []
    if (port === undefined) continue
    browser.stderr!.resume()
    return port
  }
  throw new Error('Chromium ended before it listened')
}

async function tabOf(socket: WebSocket): Promise<Tab> {
  let sent = 0
  const waiting = new Map<number, (message: Message) => void>()
  const errors: string[] = []
  let onLoad: () => void = () => undefined
  socket.on('message', (data) => {
    const message = JSON.parse((data as Buffer).toString()) as Message
    if (message.id !== undefined) waiting.get(message.id)?.(message)
    else if (message.method === 'Page.loadEventFired') onLoad()
    else if (message.method === 'Log.entryAdded') {
      const { level, text } = message.params!['entry'] as { level: string; text: string }
      if (level === 'error') errors.push(text)
    } else if (message.method === 'Runtime.exceptionThrown') errors.push(JSON.stringify(message.params))
  })
  const ask = (method: string, params: object = {}): Promise<Record<string, unknown>> =>
    new Promise((resolve, reject) => {
      const id = ++sent
      waiting.set(id, ({ result, error }) => {
        waiting.delete(id)
        if (error === undefined) resolve(result ?? {})
        else reject(new Error(`${method}: ${error.message}`))
      })
      socket.send(JSON.stringify({ id, method, params }))
    })
  for (const domain of ['Page', 'Runtime', 'Log']) await ask(`${domain}.enable`)
  const loadedAfter = async (method: string, params?: object): Promise<void> => {
    const loaded = new Promise<void>((resolve) => (onLoad = resolve))
    await ask(method, params)
    await loaded
  }
  const evaluate = async <T>(expression: string): Promise<T> => {
    const { result, exceptionDetails } = await ask('Runtime.evaluate', {
      expression,
      awaitPromise: true,
      returnByValue: true,
    })
    if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails))
    return (result as { value: T }).value
  }
  return {
    errors,
    eval: evaluate,
    text: () => evaluate<string>('document.body.innerText'),
    open: (url) => loadedAfter('Page.navigate', { url }),
    reload: () => loadedAfter('Page.reload'),
    async screenshot() {
      const { data } = await ask('Page.captureScreenshot', { captureBeyondViewport: true })
      return Buffer.from(String(data), 'base64')
    },
    async size(width, height, colors = 'light') {
      await ask('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: width < 600 })
      await ask('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: colors }] })
    },
    withoutScripts: async () => void (await ask('Emulation.setScriptExecutionDisabled', { value: true })),
  }
}
