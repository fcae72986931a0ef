// Audio that was given and is not acknowledged, kept for the connection to come.
// A place counts samples since the stream began.

export class Backlog {
  #blocks = []; // { start, samples }, without gaps

  // capacity: samples kept at most; when it is full, append takes nothing.
  constructor(capacity) {
    this.capacity = capacity;
    this.start = 0; // place of the oldest sample kept
    this.stop = 0; // place behind the newest
  }

  // Keep a block; false, and nothing is kept, when there is no room for it.
  append(samples) {
    if (this.stop - this.start + samples.length > this.capacity) return false;
    if (samples.length) this.#blocks.push({ start: this.stop, samples });
    this.stop += samples.length;
    return true;
  }

  // Up to `most` samples from `place`; none at the end. What was let go reads as silence: the server has it
  // in stored finals, and needs only its length.
  read(place, most) {
    const length = Math.max(0, Math.min(most, this.stop - place));
    const found = new Int16Array(length);
    for (let index = this.#find(place); index < this.#blocks.length; index += 1) {
      const { start, samples } = this.#blocks[index];
      if (start >= place + length) break;
      const from = Math.max(0, place - start);
      const to = Math.min(samples.length, place + length - start);
      found.set(samples.subarray(from, to), start + from - place);
    }
    return found;
  }

  // Let go of whole blocks before `place`.
  forget(place) {
    let gone = 0;
    while (gone < this.#blocks.length) {
      const { start, samples } = this.#blocks[gone];
      if (start + samples.length > place) break;
      this.start = start + samples.length;
      gone += 1;
    }
    if (gone) this.#blocks.splice(0, gone);
    return gone > 0;
  }

  // Index of the first block that ends behind `place`.
  #find(place) {
    let low = 0;
    let high = this.#blocks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const { start, samples } = this.#blocks[middle];
      if (start + samples.length > place) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
