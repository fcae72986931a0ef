// One stream across all its connections: sends audio, keeps what is not acknowledged, resumes after a cut.
//
// `told` hears:  state(name, detail)  connecting | listening | reconnecting | finishing | ended | key | error
//                ready(message)  partial(message)  final(message)  notice(text or "")
// Each final is told once. After `ended`, `key` and `error` nothing more comes.

import { Backlog } from "./backlog.js";
import { address, ending, streamPath, whyRefused } from "./transcripts.js";

const KEEP_S = 60; // audio kept until acknowledged; when full, append() takes nothing and the giver must wait
const MARGIN_S = 1; // kept behind the newest ack: the server may ask for up to 0.6 s before it
const SHORT_S = 5; // room below which audio in stored finals is let go without an ack
const LENT_MARGIN_S = 5; // kept behind it: voice detection must have settled where the server listens again
const MESSAGE_S = 0.1; // longest message of audio
const SOCKET_BYTES = 262_144; // handed to the browser and not yet on the wire; more waits in the backlog
const FIRST_PAUSE_MS = 250;
const MOST_PAUSE_MS = 8_000;
const READY_WITHIN_MS = 10_000;
const STALLED_MS = 20_000; // audio flows and nothing comes back: the connection is dead
const FINISH_MS = 60_000; // the same for a tail that is being decoded
const KEEPALIVE_MS = 20_000;
const NEW_WITHIN_MS = 10_000; // how long a stream that never began is tried for
const RESUME_WITHIN_MS = 600_000; // and one that did: a server may be away for long and still have it
const CUT = 4000; // a close code of ours that means nothing to the server, so: a cut, not the end
const TICK_MS = 1_000;

export class Link {
  #told;
  #backlog;
  #socket = null;
  #ready = false; // `ready` came on this connection
  #over = false;
  #token = null;
  #stream = null;
  #cursor = 0; // place of the next sample for this connection
  #acked = 0;
  #storedTo = 0; // place up to which the open utterance is in stored finals; 0 when nobody speaks
  #lentTo = 0; // place up to which audio was let go without an ack, because it was in them
  #next = 0; // segment of the next final
  #finishing = false;
  #finishSent = false;
  #held = false; // the server says that it does not read for now
  #error = null; // the last `error` of this connection
  #attempt = 0;
  #since = performance.now(); // when the connection last worked
  #opened = 0; // when this one was begun
  #heardAt = 0;
  #sentAt = 0;
  #audioAt = 0;
  #timer = 0; // the next attempt, or the next look at a full socket
  #tick = setInterval(() => this.#look(), TICK_MS);
  #online = () => this.#hurry();

  constructor({ interview, rate, key, told }) {
    Object.assign(this, { interview, rate, key });
    this.#told = told;
    this.#backlog = new Backlog(KEEP_S * rate);
    addEventListener("online", this.#online);
    told.state("connecting");
    this.#connect();
  }

  // Give audio; false when there is no room for it now.
  append(samples) {
    const taken = this.#backlog.append(samples);
    if (taken) this.#pump();
    return taken;
  }

  // Seconds of audio given so far.
  get seconds() {
    return this.#backlog.stop / this.rate;
  }

  // No more audio: the tail is decoded and stored, then `ended`.
  finish() {
    if (this.#over || this.#finishing) return;
    this.#finishing = true;
    this.#tell();
    this.#pump();
  }

  // Leave at once. The server keeps what it has, and decodes what it got.
  abandon() {
    const socket = this.#socket;
    this.#end("ended", { incomplete: true });
    socket?.close(1000);
  }

  // --- connections ---------------------------------------------------------------------------------------------

  #connect() {
    const url = address(streamPath(this.interview));
    url.protocol = url.protocol.replace("http", "ws");
    if (this.#token) url.searchParams.set("resume", this.#token);
    else url.searchParams.set("sample_rate", this.rate);
    const offers = this.key ? ["streamsrv", `bearer.${this.key}`] : ["streamsrv"];
    let socket;
    try {
      socket = new WebSocket(url, offers);
    } catch {
      this.#end("key", { message: "A browser cannot send this key: it has characters no WebSocket offer may have." });
      return;
    }
    Object.assign(socket, {
      onmessage: ({ data }) => this.#hear(JSON.parse(data)),
      onclose: ({ code }) => this.#closed(code),
    });
    this.#socket = socket;
    this.#opened = this.#heardAt = this.#sentAt = this.#audioAt = performance.now();
  }

  #closed(code) {
    const { ready, error } = this.#forget();
    if (this.#over) return;
    if (code === 1000) this.#end("ended");
    else if (error && !error.retryable) this.#end("error", error);
    else if (ready || error) this.#again(error?.retry_after_ms ?? 0);
    else this.#diagnose();
  }

  // Drop a connection that is dead, without waiting for its close handshake.
  #cut() {
    const socket = this.#socket;
    Object.assign(socket, { onmessage: null, onclose: null });
    socket.close(CUT);
    this.#closed(1006);
  }

  #forget() {
    const last = { ready: this.#ready, error: this.#error };
    Object.assign(this.#socket ?? {}, { onmessage: null, onclose: null });
    if (this.#ready) this.#since = performance.now();
    this.#socket = this.#error = null;
    this.#ready = this.#held = false;
    return last;
  }

  // The handshake was refused, and the browser does not say why.
  async #diagnose() {
    const why = await whyRefused(this.interview, this.key);
    if (this.#over) return;
    if (why.status === 401) {
      const message = this.key ? "This key does not open the server." : "This server asks for an API key.";
      this.#end("key", { message });
    } else if (why.status === 400 || why.status === 403) {
      this.#end("error", why);
    } else {
      const ended = this.#token && why.status ? await ending(this.interview, this.#stream, this.key) : null;
      if (this.#over) return;
      if (ended) this.#lateEnd(ended);
      else this.#again(0, why);
    }
  }

  // The stream ended while the connection was away: well, when all that was given was heard.
  #lateEnd({ audioMs, segments }) {
    for (const segment of segments) this.#final(segment);
    const heard = audioMs === null ? Math.max(this.#acked, this.#lentTo) / this.rate : audioMs / 1000;
    const missing = this.seconds - heard;
    if (missing < (audioMs === null ? 1 : 0.01)) this.#end("ended");
    else {
      const message = `The server ended the stream while the connection was away.`;
      const hint = `Up to ${Math.ceil(missing)} s at the end may be missing. Start again to go on in the same interview.`;
      this.#end("error", { message, hint });
    }
  }

  #again(atLeastMs, why = {}) {
    if (performance.now() - this.#since > (this.#token ? RESUME_WITHIN_MS : NEW_WITHIN_MS)) {
      this.#end("error", unreachable(why.status));
      return;
    }
    const whole = Math.min(MOST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(this.#attempt, 16));
    this.#attempt += 1;
    this.#tell();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(), Math.max(atLeastMs, whole * (0.5 + Math.random() / 2)));
  }

  // The browser says the network is back: do not wait for the rest of the pause.
  #hurry() {
    if (this.#over || this.#socket) return;
    clearTimeout(this.#timer);
    this.#connect();
  }

  #look() {
    const now = performance.now();
    if (!this.#socket) return;
    if (!this.#ready) {
      if (now - this.#opened > READY_WITHIN_MS) this.#cut();
    } else if (!this.#held && this.#audioAt - this.#heardAt > STALLED_MS) {
      this.#cut();
    } else if (this.#finishSent && now - this.#heardAt > FINISH_MS) {
      this.#cut();
    } else if (now - this.#sentAt > KEEPALIVE_MS) {
      this.#send(JSON.stringify({ type: "keepalive" }));
    }
  }

  #tell() {
    if (!this.#ready) this.#told.state(this.#token ? "reconnecting" : "connecting");
    else this.#told.state(this.#finishing ? "finishing" : "listening");
  }

  #end(state, detail = {}) {
    if (this.#over) return;
    this.#over = true;
    clearInterval(this.#tick);
    clearTimeout(this.#timer);
    removeEventListener("online", this.#online);
    const socket = this.#socket;
    this.#forget();
    if (state !== "ended") socket?.close(CUT);
    this.#told.state(state, detail);
  }

  // --- up ------------------------------------------------------------------------------------------------------

  #send(data) {
    this.#socket.send(data);
    this.#sentAt = performance.now();
  }

  #pump() {
    if (!this.#ready) return;
    const most = Math.round(MESSAGE_S * this.rate);
    while (this.#cursor < this.#backlog.stop) {
      if (this.#socket.bufferedAmount > SOCKET_BYTES) {
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.#pump(), 50);
        return;
      }
      const samples = this.#backlog.read(this.#cursor, most);
      this.#cursor += samples.length;
      this.#send(samples);
      this.#audioAt = this.#sentAt;
    }
    if (this.#finishing && !this.#finishSent) {
      this.#finishSent = true;
      this.#send(JSON.stringify({ type: "finish" }));
    }
  }

  // Let go of what the server has for good.
  #release() {
    this.#backlog.forget(this.#acked - MARGIN_S * this.rate);
    // Acks move only in silence. Sound that never pauses is stored piece by piece all the same, and may go when
    // room gets short: a resume then sends silence in its place, and the server ignores it.
    const { start, stop, capacity } = this.#backlog;
    if (capacity - (stop - start) < SHORT_S * this.rate) {
      if (this.#backlog.forget(this.#storedTo - LENT_MARGIN_S * this.rate)) this.#lentTo = this.#backlog.start;
    }
  }

  // --- down ----------------------------------------------------------------------------------------------------

  #hear(message) {
    this.#heardAt = performance.now();
    const place = (ms) => Math.floor((ms * this.rate) / 1000);
    switch (message.type) {
      case "ready":
        this.#begin(message);
        break;
      case "partial":
        if (message.segment >= this.#next) this.#told.partial(message);
        break;
      case "final":
        this.#final(message);
        // What lies in a spool may be replaced yet.
        if (this.#storedTo && message.durable === "store") this.#storedTo = Math.max(this.#storedTo, place(message.stop_ms));
        this.#release();
        break;
      case "speech_started":
        this.#storedTo = Math.max(1, place(message.at_ms));
        break;
      case "utterance_end":
        this.#storedTo = 0;
        break;
      case "ack":
        this.#acked = Math.max(this.#acked, message.samples);
        this.#release();
        break;
      case "degraded":
        this.#held = message.active;
        this.#told.notice(message.active ? message.message : "");
        break;
      case "error":
        this.#error = message;
        break;
    }
  }

  #begin(message) {
    const place = message.resume_at;
    const { start, stop } = this.#backlog;
    if (place > stop || (place < start && start > this.#lentTo)) {
      this.#end("error", { message: "The server asks for audio this page no longer has.", hint: "Start again." });
      return;
    }
    this.#token = message.resume_token;
    this.#stream = message.stream;
    this.#ready = true;
    this.#attempt = 0;
    this.#cursor = place;
    this.#finishSent = false;
    this.#storedTo = 0;
    this.#told.ready(message);
    for (const final of message.finals) this.#final(final);
    this.#tell();
    this.#pump();
  }

  #final(message) {
    if (message.segment < this.#next) return;
    this.#next = message.segment + 1;
    this.#told.final(message);
  }
}

function unreachable(status) {
  if (status) {
    return {
      message: "The server takes no new stream at the moment.",
      hint: "It may be full or about to restart, or this interview has all its live streams. Try again in a minute.",
    };
  }
  return { message: "The server does not answer.", hint: "Look whether it runs and the network is up, then start again." };
}
