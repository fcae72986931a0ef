// Runs on the audio thread: any number of channels in, blocks of mono 16-bit samples out.

const BLOCK_S = 0.05;

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(sampleRate * BLOCK_S);
    this.block = new Int16Array(this.size);
    this.filled = 0;
    this.live = true;
    this.port.onmessage = () => this.end();
  }

  process([input]) {
    const length = input.length ? input[0].length : 0;
    for (let at = 0; at < length && this.live; at += 1) {
      let sum = 0;
      for (const channel of input) sum += channel[at];
      const value = Math.round((sum / input.length) * 32768);
      this.block[this.filled] = Math.max(-32768, Math.min(32767, value));
      this.filled += 1;
      if (this.filled === this.size) this.give();
    }
    return this.live;
  }

  give() {
    const block = this.block.slice(0, this.filled);
    this.port.postMessage(block, [block.buffer]);
    this.filled = 0;
  }

  // The page stops: hand over the begun block, then say that it was the last.
  end() {
    if (this.filled) this.give();
    this.live = false;
    this.port.postMessage(null);
  }
}

registerProcessor("recorder", Recorder);
