/**
 * A client for browsers: lists are fetched when they are about to be shown, events are told beside, none is lost.
 *
 *   import { Foretaste } from "./foretaste.js";
 *   const foretaste = new Foretaste("https://recommend.example", { key: "ft_..." });   // a key of role client
 *   foretaste.record({ member_id: "m1", action: "play", title_id: "t1" });
 *   const listing = await foretaste.recommend({ member_id: "m1", session_id: "s1", k: 10 });
 *   foretaste.shown(listing, listing.titleIds.slice(0, 6));
 *
 * What is recorded is in `storage` when `record` returns, goes out in batches with an id of its own, and is sent again
 * after any failure until the service has it. A list is never kept: it is of the moment in which it was asked for.
 * By default `storage` is the tab's own, which outlives a reload and not the tab: two tabs must not share one.
 * No dependencies; an ES module.
 */

const PASSING = new Set([408, 425, 429, 500, 502, 503, 504]);
const KEY_TROUBLE = new Set([401, 403]); // a key that is being rotated
const BAD = new Set([400, 413, 422]);

/** A call that was not answered as wished; `status` is 0 where nothing was answered at all. */
export class CallError extends Error {
  constructor(message, status = 0, retryAfterMs = 0) {
    super(message);
    this.name = "CallError";
    this.status = status;
    this.retryAfterMs = retryAfterMs;
    this.passes = status === 0 || PASSING.has(status);
  }
}

export const DEFAULTS = Object.freeze({
  batchEvents: 100, // at most 1,000
  intervalMs: 1000, // an event waits so long for others to go with
  timeoutMs: 2000, // of one call
  flushMs: 500, // a list waits at most so long until what was recorded is told
  tries: 2, // of a list
  firstWaitMs: 200, // at most, before the second try; then twice that, and so on
  longestWaitMs: 30000,
  mostWaiting: 1000, // events and acks; beyond that the oldest go
  storageKey: "foretaste.waiting",
});

export class Foretaste {
  /**
   * `options`: key, and what can be set (see DEFAULTS). Everything that the browser gives can be given instead:
   * fetch, storage (getItem, setItem), now (milliseconds), sleep, random, id.
   */
  constructor(url, options = {}) {
    this.config = { ...DEFAULTS, ...options };
    this.numDropped = 0; // went untold, because too many waited
    this.numRefused = 0; // that the service will never take
    this._url = url.replace(/\/+$/, "");
    this._fetch = options.fetch ?? ((...of) => globalThis.fetch(...of));
    this._storage = options.storage ?? browserStorage();
    this._now = options.now ?? (() => Date.now());
    this._sleep = options.sleep ?? ((ms) => new Promise((done) => setTimeout(done, ms)));
    this._random = options.random ?? Math.random;
    this._id = options.id ?? randomId;
    this._waiting = this._load();
    this._failures = 0;
    this._batch = this.config.batchEvents;
    this._sending = null;
    this._timer = null;
    this._background = options.background ?? true;
    if (this._background && this._waiting.length) this._wake(0);
    if (this._background && typeof globalThis.addEventListener === "function") {
      globalThis.addEventListener("pagehide", () => this.send({ keepalive: true }));
      globalThis.addEventListener("online", () => this._wake(0));
    }
  }

  /** Events and acks that the service does not have yet. */
  get numWaiting() {
    return this._waiting.length;
  }

  /** Note an event, to be told soon; gives its id. Where it says no `event_id` and no `at` they are made now. */
  record(event) {
    const body = { event_id: this._id(), at: Math.round(this._now()), ...event };
    this._add({ kind: "event", body });
    return body.event_id;
  }

  /**
   * Ask for a list that is about to be shown, once what was recorded is told, if that can be done in time.
   * Rejects with CallError where there is none to be had: show something of your own, and no old list.
   */
  async recommend(request) {
    await this.flush(this.config.flushMs);
    for (let tried = 1; ; tried += 1) {
      try {
        const answer = await this._call("/v1/recommend", request);
        return { decisionId: answer.decision_id, titleIds: answer.items.map((item) => item.title_id), answer };
      } catch (error) {
        if (!(error instanceof CallError) || !error.passes || tried >= this.config.tries) throw error;
        await this._sleep(Math.min(this._wait(tried, error), this.config.timeoutMs));
      }
    }
  }

  /** Note which titles of a list were really shown, in its order, to be told soon; say more as they scroll. */
  shown(listing, titleIds) {
    if (listing.decisionId === null || titleIds.length === 0) return;
    const body = { shown: [...titleIds], at: Math.round(this._now()) };
    this._add({ kind: "ack", decisionId: listing.decisionId, body });
  }

  /** Tell what waits, for at most `ms`; says whether all is told. */
  async flush(ms) {
    const end = this._now() + ms;
    while (this._waiting.length) {
      const left = end - this._now();
      if (left <= 0) return false;
      const wait = await this.send({ timeoutMs: Math.min(left, this.config.timeoutMs) });
      if (wait && this._now() + wait > end) return false;
      if (wait) await this._sleep(wait);
    }
    return true;
  }

  /** Tell the oldest batch; gives the milliseconds to wait before the next: 0 where it went well, or is refused. */
  send(options = {}) {
    if (this._sending === null) {
      this._sending = this._send(options).finally(() => {
        this._sending = null;
      });
    }
    return this._sending;
  }

  async _send(options) {
    const batch = this._first();
    if (batch.length === 0) return 0;
    try {
      await this._tell(batch, options);
    } catch (error) {
      if (!(error instanceof CallError)) throw error;
      return this._failed(batch, error);
    }
    this._remove(batch);
    this._failures = 0;
    this._batch = this.config.batchEvents;
    return 0;
  }

  async _tell(batch, options) {
    const [first] = batch;
    if (first.kind === "ack") {
      await this._call(`/v1/decisions/${encodeURIComponent(first.decisionId)}/ack`, first.body, options);
      return;
    }
    const receipt = await this._call("/v1/events", { events: batch.map((one) => one.body) }, options);
    this.numRefused += (receipt.rejected ?? []).length;
  }

  /** What cannot succeed is given up, so that it holds up nothing; all else is tried again after a while. */
  _failed(batch, error) {
    if (BAD.has(error.status) && batch.length > 1) {
      this._batch = Math.max(1, Math.floor(batch.length / 2)); // until the bad one stands alone
      return 0;
    }
    if (error.passes || KEY_TROUBLE.has(error.status)) {
      this._failures += 1;
      return this._wait(this._failures, error);
    }
    this._remove(batch);
    this.numRefused += batch.length;
    return 0;
  }

  /** Drawn up to a bound that doubles, so that many clients do not come at once. */
  _wait(failures, error) {
    const bound = Math.min(this.config.longestWaitMs, this.config.firstWaitMs * 2 ** Math.min(failures - 1, 30));
    return Math.max(this._random() * bound, error.retryAfterMs, 1);
  }

  async _call(path, body, { timeoutMs = this.config.timeoutMs, ...options } = {}) {
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(), timeoutMs);
    try {
      const headers = { "content-type": "application/json" };
      if (this.config.key) headers["x-api-key"] = this.config.key;
      const request = { method: "POST", headers, body: JSON.stringify(body), signal: stop.signal, cache: "no-store" };
      const answer = await this._fetch(this._url + path, { ...request, ...options });
      if (!answer.ok) {
        const after = Number(answer.headers.get("retry-after"));
        const told = `${path}: ${answer.status}: ${await answer.text()}`;
        throw new CallError(told, answer.status, Number.isFinite(after) ? after * 1000 : 0);
      }
      return await answer.json();
    } catch (error) {
      throw error instanceof CallError ? error : new CallError(`${path}: ${error.message}`);
    } finally {
      clearTimeout(timer);
    }
  }

  /** The oldest ones of one kind; acks one by one. */
  _first() {
    const most = this._waiting[0]?.kind === "ack" ? 1 : this._batch;
    const other = this._waiting.findIndex((one) => one.kind !== "event");
    return this._waiting.slice(0, most === 1 || other < 0 ? most : Math.min(most, other));
  }

  _add(one) {
    this._waiting.push(one);
    const more = this._waiting.length - this.config.mostWaiting;
    if (more > 0) {
      this._waiting.splice(0, more);
      this.numDropped += more;
    }
    this._save();
    if (this._background) this._wake(this.config.intervalMs);
  }

  _remove(batch) {
    const gone = new Set(batch); // some may have been dropped meanwhile
    this._waiting = this._waiting.filter((one) => !gone.has(one));
    this._save();
  }

  _wake(ms) {
    if (this._timer !== null) return;
    this._timer = setTimeout(async () => {
      this._timer = null;
      const wait = await this.send();
      if (this._waiting.length) this._wake(wait);
    }, ms);
  }

  _load() {
    try {
      const found = JSON.parse(this._storage.getItem(this.config.storageKey) ?? "[]");
      return Array.isArray(found) ? found : [];
    } catch {
      return [];
    }
  }

  _save() {
    try {
      this._storage.setItem(this.config.storageKey, JSON.stringify(this._waiting));
    } catch {
      // Storage that is full or forbidden: what waits is in memory and ends with the page.
    }
  }
}

function browserStorage() {
  try {
    if (globalThis.sessionStorage) return globalThis.sessionStorage;
  } catch {
    // forbidden
  }
  const kept = new Map();
  return { getItem: (name) => kept.get(name) ?? null, setItem: (name, value) => kept.set(name, value) };
}

function randomId() {
  if (globalThis.crypto?.randomUUID) return globalThis.crypto.randomUUID();
  const part = () => Math.floor(Math.random() * 2 ** 32).toString(16).padStart(8, "0");
  return part() + part() + part() + part();
}
