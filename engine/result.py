"""What training leaves behind, whichever algorithm it was."""

from dataclasses import dataclass

from torch import Tensor

from engine.checkpoint import Checkpoint


@dataclass(frozen=True)
class TrainingResult:
    """The trained parameters and the size of the effort."""

    parameters: Tensor  # (P,)
    num_samples: int
    num_steps: int
    elapsed_s: float  # of training, over all attempts
    already_complete: bool  # nothing was trained: an earlier call had finished

    @staticmethod
    def of(checkpoint: Checkpoint, *, already_complete: bool) -> "TrainingResult":
        """The result that a final checkpoint holds."""
        return TrainingResult(
            parameters=checkpoint.read_parameters(),
            num_samples=checkpoint.num_counted,
            num_steps=checkpoint.num_steps,
            elapsed_s=checkpoint.elapsed_s,
            already_complete=already_complete,
        )
