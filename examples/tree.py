"""Tree rollouts: an episode is branched at every turn, so that each turn gets credit of its own.

    value(turn) = mean reward of several continuations from the state after it;   credit(turn) = value(turn) - value(before)

python examples/tree.py
"""

import numpy as np

from swannery.environments import Env, make

NUM_CONTINUATIONS = 40


def continued(env: Env, rng: np.random.Generator) -> float:
    """The reward of one episode that goes on from here, played by the environment's demonstrator."""
    total = 0.0
    while env.outcome is None:
        total += env.step(env.demonstrate(rng))[1]
    env.close()
    return total


def value(env: Env, rng: np.random.Generator) -> float:
    """What the demonstrator earns from here on, on average."""
    return float(np.mean([continued(env.branch(), rng) for _ in range(NUM_CONTINUATIONS)]))


def main() -> list[tuple[str, float]]:
    env, rng = make("chat/Guess-v0"), np.random.default_rng(1)
    env.reset(seed=4)
    before, credit, given = value(env, rng), [], 0.0
    print(f"The number is {env.task.answer}. From the start the demonstrator earns {before:.2f}.")
    while env.outcome is None:
        turn = env.demonstrate(rng)
        given += env.step(turn)[1]
        after = given + (value(env, rng) if env.outcome is None else 0.0)
        credit.append((turn.answer, after - before))
        print(f"  guesses {turn.answer:>2}: worth {after - before:+.2f}")
        before = after
    return credit


if __name__ == "__main__":
    main()
