"""From files to batches: formats, checks, splits, transforms, mixing, sampling, loading.

Import what you need from the modules; this package imports nothing by itself, so that it costs nothing:

- `clearsight.data.read.read_dataset` reads any format and checks it,
- `clearsight.data.convert.convert` turns one format into another,
- `clearsight.data.dataset.Dataset` is what readers give and writers take,
- `clearsight.data.formats` has one module a format, each with `read`, `write`, `loses` and `sniff`.
"""

from __future__ import annotations
