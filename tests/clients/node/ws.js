// A WebSocket server and client by `ws`: `node ws.js serve` echoes, `node ws.js call URL` tries everything once.
const { WebSocket, WebSocketServer } = require("ws");
const assert = require("node:assert");
const crypto = require("node:crypto");
const { once } = require("node:events");

function serve() {
  const [host, port] = process.env.MESH_APP_ADDR.split(":");
  const server = new WebSocketServer({ host, port: Number(port), perMessageDeflate: true });
  server.on("connection", (socket) => {
    socket.on("message", (data, binary) => socket.send(data, { binary }));
  });
}

async function call(url) {
  const socket = new WebSocket(url, { perMessageDeflate: true });
  await once(socket, "open");
  assert.match(socket.extensions, /permessage-deflate/);
  for (const sent of ["hello", "x".repeat(70_000), crypto.randomBytes(1 << 20)]) {
    socket.send(sent);
    const [got, binary] = await once(socket, "message");
    assert.strictEqual(binary, typeof sent !== "string");
    assert.ok(Buffer.from(sent).equals(got));
  }
  socket.ping("are you there");
  const [pong] = await once(socket, "pong");
  assert.strictEqual(pong.toString(), "are you there");
  socket.close(4001, "enough");
  const [code] = await once(socket, "close");
  assert.strictEqual(code, 4001);
}

if (process.argv[2] === "serve") serve();
else call(process.argv[3]).catch((error) => { console.error(error.message); process.exit(1); });
