"""Reinforcement learning: trajectories, the runner, the learner, the one loop, checkpoints, evaluation."""

from .advantages import centered, leave_one_out
from .batch import Sample, TrainBatch, micro_batches, pack, total_weight
from .config import ConfigError, RunConfig, load_config, read_toml
from .controller import Controller, Interrupted
from .demonstrations import demonstrate
from .evaluation import Score, evaluate, wilson
from .learner import Learner, RouterTraining
from .losses import clipped_surrogate, token_mean_loss
from .policy_loss import PolicyLoss
from .run_folder import RunError, RunFolder
from .runner import EnvironmentPool, RolloutSpec, rollout
from .trajectory import Group, Segment, Trajectory, TurnRecord

__all__ = [
    "ConfigError",
    "Controller",
    "EnvironmentPool",
    "Group",
    "Interrupted",
    "Learner",
    "PolicyLoss",
    "RolloutSpec",
    "RouterTraining",
    "RunConfig",
    "RunError",
    "RunFolder",
    "Sample",
    "Score",
    "Segment",
    "TrainBatch",
    "Trajectory",
    "TurnRecord",
    "centered",
    "clipped_surrogate",
    "demonstrate",
    "evaluate",
    "leave_one_out",
    "load_config",
    "micro_batches",
    "pack",
    "read_toml",
    "rollout",
    "token_mean_loss",
    "total_weight",
    "wilson",
]
