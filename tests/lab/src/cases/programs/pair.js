// SPDX-License-Identifier: GPL-2.0
// pair.js serve | ADDRESS: both ends of a few connections; everything comes back, and its digest is printed.
const { createHash } = require("node:crypto");
const net = require("node:net");

const [PORT, CONNECTIONS, MESSAGES, LARGEST] = [7802, 6, 40, 60000];

// Bytes that look random, and are the same each time.
function message(seed, index) {
  const size = (seed * 7919 + index * 104729) % LARGEST;
  const bytes = Buffer.alloc(size);
  let state = (seed * 65537 + index + 1) >>> 0;
  for (let at = 0; at < size; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}

function ask(address, seed) {
  return new Promise((resolve, reject) => {
    const [sent, received] = [createHash("sha256"), createHash("sha256")];
    const socket = net.connect(PORT, address, () => {
      for (let index = 0; index < MESSAGES; index++) {
        const bytes = message(seed, index);
        sent.update(bytes);
        socket.write(bytes);
      }
      socket.end();
    });
    socket.on("data", (bytes) => received.update(bytes));
    socket.on("error", reject);
    socket.on("end", () => {
      const [there, back] = [sent.digest("hex"), received.digest("hex")];
      there === back ? resolve(back) : reject(new Error("what came back differs"));
    });
  });
}

if (process.argv[2] === "serve") {
  net.createServer((socket) => socket.pipe(socket)).listen(PORT, "0.0.0.0");
} else {
  const seeds = [...Array(CONNECTIONS).keys()];
  Promise.all(seeds.map((seed) => ask(process.argv[2], seed))).then(
    (digests) => digests.forEach((digest) => console.log(digest)),
    (error) => { console.error(error); process.exit(1); },
  );
}
