// Node's own HTTP server: /events sends one event every 100 ms, /poll answers after six seconds, /upload?N tells what came.
const http = require("node:http");
const crypto = require("node:crypto");

const [host, port] = process.env.MESH_APP_ADDR.split(":");
http.createServer((request, response) => {
  if (request.url === "/events") {
    response.writeHead(200, { "content-type": "text/event-stream" });
    let number = 0;
    const timer = setInterval(() => response.write(`data: ${number++}\n\n`), 100);
    response.on("close", () => clearInterval(timer));
  } else if (request.url === "/poll") {
    setTimeout(() => response.end("at last"), 6_000);
  } else {
    const hash = crypto.createHash("sha256");
    request.on("data", (part) => hash.update(part));
    request.on("end", () => {
      response.setHeader("content-type", request.headers["content-type"] ?? "text/plain");
      response.end(`${request.method} ${request.httpVersion} ${hash.digest("hex")}\n`);
    });
  }
}).listen(Number(port), host);
