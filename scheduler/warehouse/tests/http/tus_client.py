"""A stock tus client (tuspy) against a warehouse: an index, then an image that stops, and resumes with a new token."""

import sys

from tusclient import client
from tusclient.exceptions import TusCommunicationError

address, task, index, image = sys.argv[1:]
with open("token", encoding="ascii") as file:
    token = file.read()
warehouse = client.TusClient(f"http://{address}/files", headers={"Authorization": f"Bearer {token}"})


def uploader(kind, path, **more):
    metadata = {"kind": kind, "task": task, "name": "tuspy"}
    return warehouse.uploader(path, chunk_size=300_000, metadata=metadata, upload_checksum=True, **more)


uploader("index", index).upload()
first = uploader("image", image)
first.upload(stop_at=700_000)
# The token ends in the middle: the client is refused, gets a new one, and goes on where it was.
with open("ended-token", encoding="ascii") as file:
    warehouse.set_headers({"Authorization": f"Bearer {file.read()}"})
try:
    uploader("image", image, url=first.url)
except TusCommunicationError as error:
    print("refused", error.status_code)
warehouse.set_headers({"Authorization": f"Bearer {token}"})
second = uploader("image", image, url=first.url)
print("resumed at", second.offset)
second.upload()
