"""Writes the embedded example data sets: support messages with several topics, and pairs of messages.

In: a seed. Out: `messages.csv` (`text`, `topics`: every topic that the message complains about, separated by `;`, or
nothing) and `pairs.csv` (`first`, `second`, `label`: whether both report the same problem with the same thing).
Not here: how they are read (the recipes multi-label.yaml and pairs.yaml).

The answers are known, since each text is made from its answer, and single words do not give them away: all topics share
the same phrases for what is wrong and what is fine, so a model has to learn which phrase belongs to which topic.

    python -m textcls.examples.support
"""

import csv
import random
from pathlib import Path

FOLDER = Path(__file__).parent
MESSAGES, PAIRS = 2400, 3200
_SEED = 42

# Topic -> names of what it is about.
_THINGS = {
    "account": ("my login", "the sign-in page", "my account", "the password reset", "my profile", "the access code"),
    "app": ("the app", "your mobile application", "the Android version", "the iPhone app", "the phone software"),
    "billing": ("the invoice", "my last bill", "the monthly statement", "the credit card charge", "the receipt"),
    "delivery": ("the parcel", "my package", "the shipment", "the delivery", "the courier", "the box you shipped"),
    "refund": ("the refund", "my reimbursement", "the money for the returned item", "the repayment"),
    "support": ("your hotline", "the support chat", "the help desk", "your agent on the phone", "customer service"),
}
_WRONG = (
    "is a mess again",
    "has given me nothing but trouble",
    "is still not right",
    "was a disaster this week",
    "has let me down again",
    "is a real problem for us",
    "needs to be fixed",
    "drives me mad",
    "went wrong again",
    "is anything but good",
    "fails every single time",
    "could not be worse",
)
_FINE = (
    "is fine now",
    "has given me no trouble",
    "is all right again",
    "was perfect this week",
    "has never let me down",
    "is no longer a problem for us",
    "needs no fixing",
    "makes me happy",
    "went well again",
    "is as good as ever",
    "works every single time",
    "could not be better",
)
_JOINTS = (". {}", ", but {}", ", and {}", "; {}", ", while {}", ". By the way, {}")
_BEGINNINGS = ("", "", "", "Hello, ", "Hi team, ", "Good morning, ", "To whom it may concern: ", "A short note: ")
_ENDS = (".", ".", "!", ". Thanks.", ". Best wishes, Kim", ". Please read this.")

# Thing -> its names, and problem -> ways to say it, for the pairs.
_NAMES = {
    "bill": ("the invoice", "my last bill", "the monthly statement"),
    "parcel": ("the parcel", "my package", "the shipment"),
    "contract": ("the contract", "our agreement", "the deal we signed"),
    "manual": ("the manual", "the instructions", "the user guide"),
    "repair": ("the repair", "the maintenance work", "the work of your technician"),
    "booking": ("the ticket", "my booking", "the reservation"),
}
_PROBLEMS = {
    "late": ("came far too late", "took weeks longer than promised", "was delayed again", "has still not come"),
    "wrong": ("contained a mistake", "was not correct", "had an error in it", "was not what we had agreed"),
    "lost": ("has disappeared", "cannot be found anywhere", "is missing", "seems to have got lost"),
    "costly": ("costs too much", "is more expensive than last year", "was overpriced", "is beyond our budget"),
    "unclear": ("is hard to understand", "makes no sense to me", "is confusing", "is not clear at all"),
}
_OPENINGS = ("", "", "Hello, ", "Hi team, ", "Sorry to say that ", "I write because ", "It seems that ", "As I wrote, ")
_CLOSINGS = (".", "!", ", as I said on Monday.", ". Please help.", ". Who can look into this?", ", says my colleague.")


def messages(rows: int = MESSAGES, seed: int = _SEED) -> list[tuple[str, str]]:
    """(text, topics separated by `;`), all texts different."""
    chance = random.Random(seed)
    made: dict[str, str] = {}
    while len(made) < rows:
        topics = chance.sample(sorted(_THINGS), chance.choice((1, 2, 2, 3, 3)))
        wrong = {topic for topic in topics if chance.random() < 0.5}
        clauses = [
            f"{chance.choice(_THINGS[topic])} {chance.choice(_WRONG if topic in wrong else _FINE)}" for topic in topics
        ]
        text = clauses[0]
        for clause in clauses[1:]:
            text += chance.choice(_JOINTS).format(clause)
        made[_sentences(chance.choice(_BEGINNINGS) + text + chance.choice(_ENDS))] = ";".join(sorted(wrong))
    return list(made.items())


def pairs(rows: int = PAIRS, seed: int = _SEED) -> list[tuple[str, str, str]]:
    """(first, second, `same` or `different`), half of each, all pairs different.

    The second message is drawn alike for both answers, so that neither message alone, nor its length, says anything.
    """
    chance = random.Random(seed)
    made: dict[tuple[str, str], str] = {}
    while len(made) < rows:
        thing, problem = chance.choice(sorted(_NAMES)), chance.choice(sorted(_PROBLEMS))
        first = _report(chance, thing, problem)
        answer = ("same", "different")[len(made) % 2]
        if answer == "different":
            if chance.random() < 0.5:
                thing = chance.choice(sorted(_NAMES.keys() - {thing}))
            else:
                problem = chance.choice(sorted(_PROBLEMS.keys() - {problem}))
        made.setdefault((first, _report(chance, thing, problem)), answer)
    return [(*texts, answer) for texts, answer in made.items()]


def _report(chance: random.Random, thing: str, problem: str) -> str:
    words = f"{chance.choice(_NAMES[thing])} {chance.choice(_PROBLEMS[problem])}"
    return _sentences(chance.choice(_OPENINGS) + words + chance.choice(_CLOSINGS))


def _sentences(text: str) -> str:
    """The text with a capital at the beginning of each sentence."""
    return ". ".join(part[:1].upper() + part[1:] for part in text.split(". "))


def write(folder: Path = FOLDER) -> None:
    """Writes both files, the same bytes everywhere."""
    for name, header, rows in (
        ("messages.csv", ("text", "topics"), messages()),
        ("pairs.csv", ("first", "second", "label"), pairs()),
    ):
        with open(folder / name, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)


if __name__ == "__main__":
    write()
