// Node's own HTTP server: `node node.js LOG [ADDRESS]`. Writes a line of JSON for each request that it received whole.
const crypto = require("node:crypto");
const fs = require("node:fs");
const http = require("node:http");

const [host, port] = (process.argv[3] ?? process.env.MESH_APP_ADDR).split(":");
http.createServer((request, response) => {
  const hash = crypto.createHash("sha256");
  request.on("data", (part) => hash.update(part));
  request.on("end", () => {
    fs.appendFileSync(process.argv[2], JSON.stringify([request.method, request.url, hash.digest("hex")]) + "\n");
    response.end("ok");
  });
}).listen(Number(port), host);
