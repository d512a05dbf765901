// A stock tus client (tus-js-client) against a warehouse: an index, then an image that is cut in the middle, refused
// with a token that has ended, and resumed with a new one. Run by tests/http/peers.rs in a folder with the files.
import { createReadStream, readFileSync, statSync } from 'node:fs'
import * as tus from 'tus-js-client'

const [address, task] = process.argv.slice(2)
const token = (file) => `Bearer ${readFileSync(file, 'ascii')}`
const PIECE = 300_000

// Settles when the upload ends in either way; stops it after `stopAt` bytes were taken.
function upload(kind, { authorization = token('token'), url = null, stopAt = Infinity, begun = () => {} } = {}) {
  return new Promise((resolve, reject) => {
    let asked = false
    const uploading = new tus.Upload(createReadStream(kind), {
      endpoint: `http://${address}/files`,
      uploadUrl: url,
      uploadSize: statSync(kind).size,
      chunkSize: PIECE,
      retryDelays: null,
      headers: { Authorization: authorization },
      metadata: { kind, task, name: 'tus-js-client' },
      onAfterResponse: (request, response) => {
        if (request.getMethod() === 'HEAD' && !asked) {
          asked = true
          begun(response.getHeader('Upload-Offset'))
        }
      },
      onChunkComplete: (_, accepted) => {
        if (accepted >= stopAt) uploading.abort().then(() => resolve(uploading.url), reject)
      },
      onSuccess: () => resolve(uploading.url),
      onError: reject,
    })
    uploading.start()
  })
}

await upload('index')
const url = await upload('image', { stopAt: 3 * PIECE })
console.log('cut')
await upload('image', { url, authorization: token('ended-token') }).catch((error) => {
  console.log('refused', error.originalResponse.getStatus())
})
await upload('image', { url, begun: (offset) => console.log('resumed at', offset) })
console.log('done')
