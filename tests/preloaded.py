"""What the processes of a test need, imported once."""

import accelerate  # noqa: F401
import torch._dynamo
import torch.distributed.fsdp  # noqa: F401

import driftfield.report.shard
import driftfield.train.fit  # noqa: F401
