// Node.js with `ws`: a Map of Sets, and a loop over `send`. The control socket is that of control.py.
import { createServer } from 'node:net'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { performance } from 'node:perf_hooks'

const { WebSocketServer } = createRequire(process.env.BENCH_NODE_MODULES + '/')('ws')
const port = Number(process.env.BENCH_PORT)
const controlPort = Number(process.env.BENCH_CONTROL_PORT)

const rooms = new Map()
let joined = 0
let left = 0

// `backlog` is uvicorn's.
new WebSocketServer({ host: '127.0.0.1', port, path: '/ws', backlog: 2048 }).on('connection', (socket, request) => {
  const asked = new URL(request.url, 'ws://localhost').searchParams
  const room = asked.get('room')
  const own = [room, ...Array.from({ length: Number(asked.get('extra') ?? 0) }, (_, n) => `${room}-${n}`)]
  for (const name of own) {
    if (!rooms.has(name)) rooms.set(name, new Set())
    rooms.get(name).add(socket)
  }
  joined += 1
  socket.on('close', () => {
    for (const name of own) {
      const members = rooms.get(name)
      members.delete(socket)
      if (members.size === 0) rooms.delete(name)
    }
    left += 1
  })
})

const send = (room, text) => {
  for (const socket of rooms.get(room) ?? []) socket.send(text)
}

const words = 'room user sends typed text late green small harbour forty seven answer maybe window letter found'.split(' ')
const texts = new Map()
let sent = 0

function text(size) {
  if (!texts.has(size)) {
    texts.set(size, Array.from({ length: 64 }, (_, seed) => {
      let made = ''
      for (let n = seed; made.length < size; n += 7) made += `${words[n % words.length]} ${(n * 7919) % 10000} `
      return made.slice(0, size)
    }))
  }
  return texts.get(size)[++sent % 64]
}

const cpu = () => {
  const { user, system } = process.cpuUsage()
  return { cpu_s: (user + system) / 1e6 }
}

function memory() {
  globalThis.gc?.()
  return { rss: Number(readFileSync('/proc/self/statm', 'latin1').split(' ')[1]) * 4096 }
}

const turn = () => new Promise((resolve) => setImmediate(resolve))

async function wait({ joined: in_, left: out }) {
  while (joined < in_ || left < out) await new Promise((resolve) => setTimeout(resolve, 5))
  return cpu()
}

function round({ room, rooms: count = 0, burst = 1, size = 128 }) {
  for (let k = 0; k < burst; k++) {
    if (count) for (let n = 0; n < count; n++) send(`${room}${n}`, text(size))
    else send(room, text(size))
  }
}

async function sends({ room, senders, each, size = 128 }) {
  const started = performance.now()
  const before = cpu().cpu_s
  const sender = async () => {
    for (let n = 0; n < each; n++) {
      send(room, text(size))
      await turn()
    }
  }
  await Promise.all(Array.from({ length: senders }, sender))
  const took = { sends_wall_s: (performance.now() - started) / 1e3, sends_cpu_s: cpu().cpu_s - before }
  return { ...cpu(), ...took }
}

createServer((socket) => {
  let pending = ''
  socket.on('error', () => {})
  socket.on('data', async (data) => {
    const lines = (pending + data).split('\n')
    pending = lines.pop()
    for (const line of lines) {
      const { do: kind, ...command } = JSON.parse(line)
      if (kind === 'round') round(command)
      else socket.write(JSON.stringify(await { cpu, memory, wait, sends }[kind](command)) + '\n')
    }
  })
}).listen(controlPort, '127.0.0.1')
