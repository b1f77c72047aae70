"""Pure rules of prices and forecasts. Prices are micro-USD per million units, so that they are whole numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MILLION = 1_000_000
SANDBOX_SECONDS = "sandbox_seconds"
MODEL_TOKENS = "model_tokens"
# Phases are the same for every organization; workflow's registry holds them.
PHASES = frozenset(
    f"PHASE_{name}"
    for name in (
        "BACKLOG",
        "REQUIREMENTS",
        "DESIGN",
        "IMPLEMENTATION",
        "TESTING",
        "DEPLOYMENT",
        "DONE",
        "BLOCKED",
    )
)
OLDER_PHASES: Mapping[str, str] = {
    "PHASE_INITIAL": "PHASE_REQUIREMENTS",
    "PHASE_INTEGRATION": "PHASE_TESTING",
    "PHASE_VALIDATION": "PHASE_TESTING",
    "PHASE_REFACTORING": "PHASE_IMPLEMENTATION",
    "PHASE_FINAL": "PHASE_IMPLEMENTATION",
    "PHASE_BUILDING_DONE": "PHASE_DEPLOYMENT",
}
"""Names of older clients, which workflow understands as well."""
DEFAULT_TOKENS_PER_TASK = 5000
REPORTED_PROMPT_PERCENT = 30
# Forecasts add a fifth, as the contract says: tasks are retried.
BUFFER_PERCENT = 120
BUFFER = BUFFER_PERCENT / 100


@dataclass(frozen=True, slots=True)
class Price:
    """Micro-USD per million prompt and completion tokens (for sandboxes: per million seconds, `prompt` only)."""

    prompt: int
    completion: int
    version: int = 1


PriceList = Mapping[tuple[str, str], Price]
"""(provider, model) in small letters → its newest price; under `UNLISTED` what everything else costs."""

SANDBOX = ("omoios", "sandbox")
UNLISTED = ("*", "*")
MAX_PRICE = 10**12

# Version 1, as in the contract's table (USD per token × 10^12); an operator adds later versions.
FIRST_PRICES: PriceList = {
    ("openai", "gpt-4-turbo"): Price(10_000_000, 30_000_000),
    ("openai", "gpt-4"): Price(30_000_000, 60_000_000),
    ("openai", "gpt-3.5-turbo"): Price(500_000, 1_500_000),
    ("openai", "text-embedding-3-small"): Price(20_000, 0),
    ("openai", "text-embedding-3-large"): Price(130_000, 0),
    ("anthropic", "claude-sonnet-4.5"): Price(3_000_000, 15_000_000),
    ("anthropic", "claude-sonnet-3.5"): Price(3_000_000, 15_000_000),
    ("anthropic", "claude-opus"): Price(15_000_000, 75_000_000),
    ("anthropic", "claude-haiku"): Price(250_000, 1_250_000),
    ("openhands", "claude-sonnet-4-5-20250929"): Price(3_000_000, 15_000_000),
    # 10 USD for a hundred hours of a sandbox, rounded.
    SANDBOX: Price(28_000_000, 0),
    UNLISTED: Price(3_000_000, 15_000_000),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a usage costs, micro-USD, by which version of the price (0: as reported).

    `listed`: false where `UNLISTED` had to serve.
    """

    prompt: int
    completion: int
    listed: bool
    version: int

    @property
    def total(self) -> int:
        """Both parts."""
        return self.prompt + self.completion


def priced(units: int, per_million: int) -> int:
    """Units times price, rounded up: a cost is never nothing because it is small."""
    return -(-units * per_million // MILLION)


def cost_of_tokens(prices: PriceList, provider: str, model: str, prompt: int, completion: int) -> Cost:
    """The cost of tokens of a model."""
    price = prices.get((provider.lower(), model.lower()))
    chosen = price or prices[UNLISTED]
    return Cost(priced(prompt, chosen.prompt), priced(completion, chosen.completion), price is not None, chosen.version)


def cost_as_reported(micro_usd: int) -> Cost:
    """A cost that the engine itself reported: 30 % of it prompt, 70 % completion, as the contract says; by no price."""
    prompt = micro_usd * REPORTED_PROMPT_PERCENT // 100
    return Cost(prompt, micro_usd - prompt, True, 0)


def cost_of_sandbox(prices: PriceList, milliseconds: int) -> Cost:
    """The cost of a sandbox's time, by started second."""
    seconds = -(-milliseconds // 1000)
    price = prices[SANDBOX]
    return Cost(priced(seconds, price.prompt), 0, True, price.version)


def forecast(prices: PriceList, tasks: int, tokens_per_task: int, provider: str, model: str) -> tuple[int, int]:
    """(micro-USD, tokens) that so many tasks will take: half of the tokens prompt, half completion, plus a buffer."""
    half = tokens_per_task // 2
    each = cost_of_tokens(prices, provider, model, half, half).total
    return each * tasks * BUFFER_PERCENT // 100, tokens_per_task * tasks


def usd(micro: int) -> float:
    """Micro-USD as the contract's USD number."""
    return micro / MILLION
