"""Records that processes share.

Whoever only looks at a Python object writes to it, for its references are counted in it, and the
page of memory that a forked process shared becomes its own. Annotations of millions of small
objects would so be copied into every worker of a loader, little by little. Bytes in one tensor are
not: nothing in them is counted. (Processes that are not forked get the tensor in shared memory.)
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import overload

import numpy as np
import torch

from eyeline.data.formats.annotations import Record


class PackedRecords(Sequence[Record]):
    """A list of records that cannot be changed; each access makes the record anew."""

    def __init__(self, records: Sequence[Record]) -> None:
        parts = [pickle.dumps(record, pickle.HIGHEST_PROTOCOL) for record in records]
        self.ends = torch.tensor([0, *np.cumsum([len(part) for part in parts])])
        self.data = torch.from_numpy(np.frombuffer(bytearray().join(parts), np.uint8))

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]  # from the end too; IndexError beyond it
        begin, end = self.ends[index : index + 2].tolist()
        record: Record = pickle.loads(self.data[begin:end].numpy())  # what was packed here, no file
        return record
