// Where audio comes from. A source has `rate` (Hz), `begin(give)`, where give(samples) takes mono Int16Array blocks,
// and `stop()`, after which the last block has been given. Errors are `Problem`s: a message and a hint for a person.

const FILE_RATE_HZ = 16_000; // what recordings are decoded to: what the server hears at
const FILE_BYTES = 104_857_600; // a larger file would not fit into the page's memory once decoded
const BLOCK_S = 0.1;
const AHEAD_MS = 50; // how often a recording is looked at for what is due

export class Problem extends Error {
  constructor(message, hint) {
    super(message);
    this.hint = hint;
  }
}

export async function microphone() {
  if (!navigator.mediaDevices) {
    throw new Problem("The browser does not give this page a microphone.", "Open it by https or on localhost.");
  }
  const media = await navigator.mediaDevices
    .getUserMedia({ audio: { channelCount: 1, echoCancellation: true, noiseSuppression: false, autoGainControl: true } })
    .catch((error) => {
      throw refused(error.name);
    });
  try {
    const context = new AudioContext();
    await context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
    await context.resume();
    return new Microphone(media, context);
  } catch (error) {
    for (const track of media.getTracks()) track.stop();
    throw error;
  }
}

function refused(name) {
  if (name === "NotAllowedError") {
    return new Problem("The microphone was not allowed.", "Allow it in the browser's address bar, then start again.");
  }
  if (name === "NotFoundError") return new Problem("There is no microphone.", "Plug one in, or choose an audio file.");
  return new Problem("The microphone cannot be opened.", "Another program may hold it; close that and start again.");
}

class Microphone {
  #media;
  #context;
  #node;
  #done = Promise.withResolvers?.() ?? withResolvers();

  constructor(media, context) {
    this.#media = media;
    this.#context = context;
    this.rate = context.sampleRate;
  }

  // `ended` is called when the microphone goes away by itself.
  begin(give, ended) {
    this.#node = new AudioWorkletNode(this.#context, "recorder", { numberOfInputs: 1, numberOfOutputs: 1 });
    this.#node.port.onmessage = ({ data }) => (data ? give(data) : this.#done.resolve());
    this.#context.createMediaStreamSource(this.#media).connect(this.#node);
    this.#node.connect(this.#context.destination); // silent; a node that leads nowhere may not be run
    for (const track of this.#media.getTracks()) track.onended = ended;
    this.#context.onstatechange = () => this.#context.state === "suspended" && this.#context.resume();
  }

  async stop() {
    if (this.#node) {
      this.#node.port.postMessage("end");
      const late = new Promise((resolve) => setTimeout(resolve, 500)); // an audio thread that hangs holds nobody up
      await Promise.race([this.#done.promise, late]);
    }
    for (const track of this.#media.getTracks()) track.stop();
    this.#context.onstatechange = null;
    await this.#context.close();
  }
}

export async function recording(file, spoken) {
  if (file.size > FILE_BYTES) {
    throw new Problem("The recording is larger than 100 MiB.", "Stream it with `streamsrv stream FILE` instead.");
  }
  const context = new OfflineAudioContext(1, 1, FILE_RATE_HZ);
  const audio = await context.decodeAudioData(await file.arrayBuffer()).catch(() => {
    throw new Problem("The browser cannot read this recording.", "WAV, FLAC, MP3, OGG and M4A usually work.");
  });
  return new Recording(audio, spoken);
}

class Recording {
  #audio;
  #spoken;
  #at = 0;
  #started = 0;
  #timer = 0;

  constructor(audio, spoken) {
    this.#audio = audio;
    this.#spoken = spoken;
    this.rate = audio.sampleRate;
  }

  // give() tells whether it took the block; the recording waits until it does, and calls `ended` behind its last one.
  begin(give, ended) {
    this.#started = performance.now();
    this.#next(give, ended);
  }

  stop() {
    clearTimeout(this.#timer);
  }

  #next(give, ended) {
    const size = Math.round(BLOCK_S * this.rate);
    const due = this.#spoken ? ((performance.now() - this.#started) / 1000) * this.rate : Infinity;
    while (this.#at < this.#audio.length && this.#at + size <= due) {
      const block = this.#mono(this.#at, size);
      if (!give(block)) break;
      this.#at += block.length;
    }
    if (this.#at < this.#audio.length) this.#timer = setTimeout(() => this.#next(give, ended), AHEAD_MS);
    else ended();
  }

  #mono(at, size) {
    const tracks = Array.from({ length: this.#audio.numberOfChannels }, (_, n) => this.#audio.getChannelData(n));
    const block = new Int16Array(Math.min(size, this.#audio.length - at));
    for (let offset = 0; offset < block.length; offset += 1) {
      let sum = 0;
      for (const track of tracks) sum += track[at + offset];
      block[offset] = Math.max(-32768, Math.min(32767, Math.round((sum / tracks.length) * 32768)));
    }
    return block;
  }
}

function withResolvers() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}
