"""What is known about reasoning-gym's data sets without importing it: names, and what an audit of their graders found.

The audit read every `score_answer` of reasoning-gym 0.1.25 and tried each with answers that no one expects. Most
graders compare texts or numbers and run in process. The rest are listed here with what follows for them.
"""

from __future__ import annotations

import re

NAMES: tuple[str, ...] = tuple(
    """
    ab acre advanced_geometry aiw arc_1d arc_agi base_conversion basic_arithmetic bf binary_alternation
    binary_matrix bitwise_arithmetic boxnet caesar_cipher calendar_arithmetic chain_sum circuit_logic codeio
    coin_flip color_cube_rotation complex_arithmetic count_bits count_primes countdown course_schedule
    cryptarithm decimal_arithmetic decimal_chain_sum dice emoji_mystery family_relationships figlet_font
    fraction_simplification futoshiki game_of_life game_of_life_halting gcd graph_color group_anagrams
    gsm_symbolic intermediate_integration isomorphic_strings jugs kakurasu knight_swap knights_knaves
    largest_island lcm leg_counting letter_counting letter_jumble list_functions mahjong_puzzle
    manipulate_matrix maze mini_sudoku modulo_grid n_queens needle_haystack number_filtering number_format
    number_sequence number_sorting palindrome_generation palindrome_partitioning path_star polynomial_equations
    polynomial_multiplication pool_matrix power_function prime_factorization products propositional_logic
    puzzle24 quantum_lock ransom_note rearc rectangle_count rotate_matrix rotten_oranges rubiks_cube rush_hour
    self_reference sentence_reordering shortest_path simple_equations simple_geometry simple_integration sokoban
    spell_backward spiral_matrix string_insertion string_manipulation string_splitting string_synthesis sudoku
    survo syllogism time_intervals tower_of_hanoi tsumego word_ladder word_sequence_reversal word_sorting
    zebra_puzzles
    """.split()
)
"""The data sets that are environments, sorted."""

EXCLUDED: dict[str, str] = {"composite": "it mixes other data sets and needs a configuration that says which"}

_NO_ANSWER = "reasoning-gym gives no answer of its own, so there is no oracle; answers are graded"
EXCEPTIONS: dict[str, str] = {
    "boxnet": _NO_ANSWER,
    "game_of_life_halting": "its grader accepts any answer that is not empty: do not train on it or report it",
    "graph_color": _NO_ANSWER,
    "puzzle24": "its grader accepts any expression that makes 24, whatever its numbers: one answer solves all tasks",
    "propositional_logic": _NO_ANSWER,
    "rubiks_cube": _NO_ANSWER,
    "rush_hour": _NO_ANSWER,
}
"""Data sets whose own answer does not earn 1.0, or whose every answer does."""

WITHOUT_ANSWER: frozenset[str] = frozenset(name for name, why in EXCEPTIONS.items() if why == _NO_ANSWER)

FLOORS: dict[str, float] = {
    "acre": 0.55,
    "aiw": 0.35,
    "binary_alternation": 0.4,
    "calendar_arithmetic": 0.25,
    "circuit_logic": 0.85,
    "count_bits": 0.35,
    "course_schedule": 0.65,
    "family_relationships": 0.35,
    "game_of_life": 1.0,
    "game_of_life_halting": 1.0,
    "gcd": 0.45,
    "isomorphic_strings": 0.7,
    "largest_island": 0.3,
    "letter_counting": 0.5,
    "mahjong_puzzle": 0.55,
    "maze": 0.55,
    "mini_sudoku": 0.3,
    "number_sequence": 0.3,
    "polynomial_equations": 0.5,
    "propositional_logic": 0.2,
    "puzzle24": 1.0,
    "ransom_note": 0.65,
    "rectangle_count": 0.55,
    "rotate_matrix": 0.15,
    "rotten_oranges": 0.5,
    "self_reference": 0.5,
    "shortest_path": 0.55,
    "spell_backward": 0.2,
    "sudoku": 0.25,
    "syllogism": 0.8,
    "time_intervals": 0.55,
    "zebra_puzzles": 0.55,
}
"""What those who know nothing reach, where it is more than 0.05: always the commonest answer, mostly, or partial credit for
the shape of one. Measured over 48 tasks with the data set's default options, and rounded up."""

EXTRACTIVE: frozenset[str] = frozenset({"string_insertion"})
"""Data sets whose answer is often a word of the prompt."""

EVALUATING: dict[str, str] = {
    "binary_matrix": "eval",
    "countdown": "sympy's parse_expr, which evaluates",
    "intermediate_integration": "sympy's parse_expr, then simplify",
    "n_queens": "eval",
    "polynomial_multiplication": "sympy's parse_expr",
    "propositional_logic": "a truth table over all variables of the answer",
    "puzzle24": "sympy's parse_expr, which evaluates",
    "rubiks_cube": "turns as many faces as the answer says: R999999999",
    "rush_hour": "moves as many steps as the answer says: A+999999999",
    "simple_integration": "sympy's parse_expr, then simplify",
    "spiral_matrix": "eval",
    "string_insertion": "eval",
}
"""Graders in which an answer is evaluated or sets the amount of work, and what does it: graded in a killable worker."""

_WORDS = "sinh|cosh|tanh|asin|acos|atan|sin|cos|tan|sec|csc|cot|exp|log|ln|sqrt|Abs|pi"
_NUMERIC = r"(?!.*\*\*)[0-9\s.+\-*/()]*"
_MATRIX = r"[0-9\s,\[\]\-]*"


def _algebra(names: str) -> str:
    """Numbers, operators and these names. A full stop is only ever a decimal one, so no attribute can be reached."""
    return rf"(?:[0-9\s+\-*/^()]|(?<=[0-9])\.(?!\s*[A-Za-z])|(?<![A-Za-z])(?:{names})(?![A-Za-z]))*"


FORMS: dict[str, re.Pattern[str]] = {
    name: re.compile(form, re.DOTALL)
    for name, form in {
        "binary_matrix": _MATRIX,
        "coin_flip": r"\s*[+-]?[0-9.,]{1,60}(?:[eE][+-]?[0-9]{1,2})?(?:\s*/\s*[0-9]{1,60})?\s*",  # not 1e999999999
        "complex_arithmetic": r"[0-9\s.eEijIJ+\-*()]*",  # NaN would score 1.0
        "countdown": _NUMERIC,
        "intermediate_integration": _algebra(f"{_WORDS}|[A-Za-z]"),  # not Integral(...), the question as an answer
        "n_queens": r"[Q_\s,'\"\[\]]*",
        "number_sorting": r"[0-9\s.,eE+\-'\"\[\]]*",  # a list of NaN would score 1.0
        "polynomial_multiplication": _algebra("[A-Za-z]"),
        "puzzle24": _NUMERIC,
        "simple_integration": _algebra(f"{_WORDS}|[A-Za-z]"),
        "spiral_matrix": _MATRIX,
        "string_insertion": r"[A-Z\s,'\"\[\]]*",
    }.items()
}
"""What a right answer can consist of, where the grader must see nothing else. Others score 0 and never reach it."""

_MAX_ANSWER = 4_000

UNREADABLE: dict[str, tuple[type[Exception], ...]] = {
    "boxnet": (AttributeError, IndexError, KeyError, TypeError),
    "calendar_arithmetic": (OverflowError,),
    "codeio": (RecursionError,),
    "coin_flip": (OverflowError,),
    "complex_arithmetic": (OverflowError,),
    "game_of_life": (KeyError,),
    "prime_factorization": (ValueError,),
    "propositional_logic": (RecursionError,),
    "time_intervals": (OverflowError,),
}
"""What these graders raise on answers they cannot read, where others return 0: it scores 0. All else is a fault."""

GENERATED: dict[str, str] = {
    "bf": "prints",
    "codeio": "executes program texts that a model once wrote, and some depend on global random state",
    "intermediate_integration": "depends on the hash seed",
    "isomorphic_strings": "depends on the hash seed",
    "knight_swap": "depends on the hash seed",
    "list_functions": "depends on the hash seed",
    "polynomial_multiplication": "depends on the hash seed",
    "pool_matrix": "seeds numpy's global random state",
    "ransom_note": "depends on the hash seed",
    "word_ladder": "depends on the hash seed",
}
"""Data sets whose items are made in a worker too, where the hash seed and global random state are fixed, and why."""

RESEEDED: frozenset[str] = frozenset({"acre", "gsm_symbolic", "list_functions"})
"""Data sets that lay out all items when they are made: each task is item 0 of a data set with a seed of its own."""

LEFT_OUT: dict[str, tuple[str, ...]] = {"gsm_symbolic": ("variables",), "time_intervals": ("start_time", "end_time")}
"""Metadata that no grader reads and that cannot be kept: fractions, which are no JSON, and today's date."""


def well_formed(name: str, answer: str, own: str = "") -> bool:
    """Whether the grader of `name` may see this answer; `own` is the data set's, which tells how long answers get."""
    form = FORMS.get(name)
    if form is None and name not in EVALUATING:
        return True
    return len(answer) <= max(_MAX_ANSWER, 2 * len(own)) and (form is None or form.fullmatch(answer) is not None)
