// What the JavaScript client does on a network that fails as it is told; prints one JSON object of what came of it.
import { CallError, Foretaste } from "../../platform/foretaste/client/foretaste.js";

const results = {};

function answer(status, body = {}, headers = {}) {
  return { ok: status < 400, status, headers: { get: (name) => headers[name] ?? null }, json: async () => body, text: async () => "told" };
}

class Network {
  constructor() {
    this.broken = [];
    this.stored = new Map();
    this.calls = [];
    this.sizes = [];
    this.acks = [];
    this.lists = 0;
    this.tooMany = 1000;
    this.headers = null;
  }

  fetch = async (url, request) => {
    const path = new URL(url).pathname;
    this.calls.push(path);
    this.headers = request.headers;
    const body = JSON.parse(request.body);
    const lost = this.broken.shift();
    if (lost === "down") throw new TypeError("no network");
    if (lost !== undefined && lost !== "lost") return lost;
    const found = this.answer(path, body);
    if (lost === "lost") throw new TypeError("the answer was lost");
    return found;
  };

  answer(path, body) {
    if (path === "/v1/events") {
      this.sizes.push(body.events.length);
      if (body.events.length > this.tooMany) return answer(413);
      const bad = body.events.map((one, index) => [one, index]).filter(([one]) => one.action === "bad");
      body.events.filter((one) => one.action !== "bad").forEach((one) => this.stored.set(one.event_id, one));
      return answer(200, { rejected: bad.map(([, index]) => ({ index })) });
    }
    if (path.endsWith("/ack")) {
      this.acks.push({ path, ...body });
      return answer(200);
    }
    this.lists += 1;
    return answer(200, { decision_id: `d${this.lists}`, items: [{ title_id: `t${this.stored.size}` }, { title_id: "t" }] });
  }
}

function storage() {
  const kept = new Map();
  return { getItem: (name) => kept.get(name) ?? null, setItem: (name, value) => kept.set(name, value) };
}

function make(network, options = {}) {
  const time = { ms: 1767323045000, slept: [] };
  let number = 0;
  let seed = 1;
  const client = new Foretaste("http://test/", {
    key: "k",
    background: false,
    fetch: network.fetch,
    storage: storage(),
    now: () => time.ms,
    sleep: async (ms) => {
      time.slept.push(ms);
      time.ms += ms;
    },
    random: () => (seed = (seed * 48271) % 2147483647) / 2147483647,
    id: () => `e${number++}`,
    ...options,
  });
  return { client, time };
}

const tests = {
  async batches() {
    const network = new Network();
    const { client } = make(network, { batchEvents: 4 });
    for (let n = 0; n < 10; n += 1) client.record({ action: "play", title_id: `t${n}` });
    const before = network.calls.length;
    const told = await client.flush(5000);
    return { before, told, sizes: network.sizes, ids: [...network.stored.keys()], at: network.stored.get("e0").at, key: network.headers["x-api-key"] };
  },
  async failures() {
    const all = [];
    for (const lost of ["down", "lost", answer(500), answer(503), answer(429), answer(401)]) {
      const network = new Network();
      const { client } = make(network);
      for (let n = 0; n < 3; n += 1) client.record({ action: "play" });
      network.broken = [lost, lost, lost, lost];
      all.push([await client.flush(1e6), [...network.stored.keys()].join(), network.calls.length, client.numWaiting, client.numRefused]);
    }
    return all;
  },
  async waits() {
    const network = new Network();
    const { client, time } = make(network, { firstWaitMs: 100, longestWaitMs: 400 });
    client.record({ action: "play" });
    network.broken = ["down", "down", "down", "down", "down"];
    await client.flush(1e6);
    const drawn = [...time.slept];
    time.slept.length = 0;
    client.record({ action: "play" });
    network.broken = [answer(429, {}, { "retry-after": "7" })];
    await client.flush(1e6);
    return { drawn, retried: time.slept };
  },
  async survives_a_reload() {
    const network = new Network();
    const shared = storage();
    const first = make(network, { storage: shared, id: (() => { let n = 0; return () => `a${n++}`; })() }).client;
    first.record({ action: "play" });
    first.record({ action: "stop" });
    const second = make(network, { storage: shared }).client;
    const waiting = second.numWaiting;
    await second.flush(1000);
    return { waiting, ids: [...network.stored.keys()], left: make(network, { storage: shared }).client.numWaiting };
  },
  async bounded() {
    const network = new Network();
    const { client } = make(network, { mostWaiting: 5 });
    for (let n = 0; n < 8; n += 1) client.record({ action: "play" });
    await client.flush(1000);
    return { dropped: client.numDropped, ids: [...network.stored.keys()] };
  },
  async refused() {
    const network = new Network();
    network.tooMany = 3;
    const { client } = make(network);
    for (let n = 0; n < 8; n += 1) client.record({ action: n === 4 ? "bad" : "play" });
    await client.flush(1000);
    return { stored: network.stored.size, refused: client.numRefused, waiting: client.numWaiting };
  },
  async just_in_time() {
    const network = new Network();
    const { client } = make(network);
    client.record({ action: "play" });
    const first = await client.recommend({ session_id: "s1" });
    const second = await client.recommend({ session_id: "s1" });
    client.shown(second, second.titleIds.slice(0, 1));
    client.record({ action: "stop" });
    network.broken = ["down", "lost"];
    await client.flush(1e6);
    return { calls: network.calls.slice(0, 3), titles: first.titleIds, ids: [first.decisionId, second.decisionId], acks: network.acks, stored: network.stored.size };
  },
  async no_old_list() {
    const network = new Network();
    const { client } = make(network);
    await client.recommend({ session_id: "s1" });
    const told = [];
    for (const broken of [["down", "down"], [answer(422)], ["down"]]) {
      network.broken = broken;
      await client.recommend({ session_id: "s1" }).then(
        (listing) => told.push(listing.decisionId),
        (error) => told.push([error instanceof CallError, error.status]),
      );
    }
    return told;
  },
  async full_storage() {
    const network = new Network();
    const broken = { getItem: () => "not JSON", setItem: () => { throw new Error("full"); } };
    const { client } = make(network, { storage: broken });
    client.record({ action: "play" });
    await client.flush(1000);
    return network.stored.size;
  },
  async background() {
    const network = new Network();
    network.broken = ["down", "down"];
    const client = new Foretaste("http://test", { fetch: network.fetch, storage: storage(), intervalMs: 1, firstWaitMs: 1 });
    for (let n = 0; n < 20; n += 1) client.record({ action: "play" });
    for (let n = 0; n < 500 && client.numWaiting; n += 1) await new Promise((done) => setTimeout(done, 5));
    return network.stored.size;
  },
};

for (const [name, run] of Object.entries(tests)) results[name] = await run();
console.log(JSON.stringify(results));
