// Zip archives that store files as they are (pictures are compressed already), and the checksum that zip and PNG share.

const UTF8_NAMES = 0x800, VERSION = 20, FIRST_DAY = 0x21; // 1 January 1980: the same files give the same archive

/** A zip of files { name, content: Uint8Array }, as a Blob. */
export function zipped(files) {
  const parts = [], directory = [];
  let offset = 0;
  for (const { name, content } of files) {
    const encoded = new TextEncoder().encode(name), size = content.length;
    const facts = [[2, VERSION], [2, UTF8_NAMES], [2, 0], [2, 0], [2, FIRST_DAY], [4, crc32(content)], [4, size], [4, size],
      [2, encoded.length], [2, 0]];
    parts.push(packed([[4, 0x04034b50], ...facts]), encoded, content);
    directory.push(packed([[4, 0x02014b50], [2, VERSION], ...facts, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]]), encoded);
    offset += 30 + encoded.length + size;
  }
  const length = directory.reduce((sum, part) => sum + part.length, 0), count = files.length;
  const end = packed([[4, 0x06054b50], [2, 0], [2, 0], [2, count], [2, count], [4, length], [4, offset], [2, 0]]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/** Numbers [bytes, value] one behind the other, little-endian. */
function packed(numbers) {
  const made = new Uint8Array(numbers.reduce((sum, [bytes]) => sum + bytes, 0)), view = new DataView(made.buffer);
  let at = 0;
  for (const [bytes, value] of numbers) {
    bytes === 2 ? view.setUint16(at, value, true) : view.setUint32(at, value, true);
    at += bytes;
  }
  return made;
}

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = (byte >>> 1) ^ (byte & 1 ? 0xedb88320 : 0);
  return byte;
});

/** CRC-32 of bytes. */
export function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ TABLE[(crc ^ byte) & 255];
  return (crc ^ 0xffffffff) >>> 0;
}
