"""A predictor without a model, with the interface of `albert_zh.load`'s."""

import threading

from albert_zh.base.errors import UserError

TIMEOUT_SECONDS = 30


class ScriptedPredictor:
    """Gives the same answer to every instance.

    Attributes:
      instances: list of those it was given.
    """

    task_name = "task"
    labels = []
    max_seq_length = 128
    has_mask_head = False

    def __init__(self, kind_name, fields, answer):
        """Begins.

        Args:
          kind_name: a key of `kinds.KINDS`, or "encoder".
          fields: tuple of the names of an instance's fields.
          answer: the answer, or a function that makes one of an instance.
        """
        self.kind_name, self.fields = kind_name, fields
        self._answer = answer if callable(answer) else lambda instance: answer
        self.instances = []

    def prepare(self, instance):
        """Returns the instance, which must have the fields."""
        if set(instance) != set(self.fields):
            raise UserError("expected {}".format(", ".join(self.fields)))
        return instance

    def answer(self, prepared):
        """Returns the answers."""
        self.instances += prepared
        return [self._answer(instance) for instance in prepared]

    def tokenize(self, text):
        """Returns a token for each character."""
        return tokens_of(text)

    def prepare_masks(self, text):
        """Returns the text."""
        return text

    def words(self, prepared):
        """Returns no words for no [MASK]."""
        return []


def tokens_of(text):
    """Returns a token for each character."""
    return [
        {"token": char, "id": ord(char), "start": i, "end": i + 1}
        for i, char in enumerate(text)
    ]


class FakePredictor:
    """Judges pairs: "1" where both texts are the same.

    Attributes:
      gate: `threading.Event`; closed, it holds all batches.
      started: `threading.Semaphore`, released once for each batch that begins.
      broken: text_a of an instance that makes the model raise.
    """

    task_name = "pair"
    kind_name = "classification"
    labels = ["0", "1"]
    fields = ("text_a", "text_b")
    max_seq_length = 32
    has_mask_head = False
    broken = "BROKEN"

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Semaphore(0)
        self.batches = []

    def prepare(self, instance):
        """Returns the two texts of an instance, checked."""
        if isinstance(instance, list) and len(instance) == 2:
            instance = dict(zip(self.fields, instance))
        if not isinstance(instance, dict) or set(instance) != set(self.fields):
            raise UserError("expected text_a and text_b")
        texts = [instance[name] for name in self.fields]
        for name, text in zip(self.fields, texts):
            if not isinstance(text, str) or not text.strip() or "\0" in text:
                raise UserError("{}: expected a text".format(name))
            if len(text) > self.max_seq_length:
                raise UserError("{}: too long".format(name))
        return texts

    def answer(self, prepared):
        """Returns the answers to prepared instances."""
        self.batches.append(len(prepared))
        self.started.release()
        assert self.gate.wait(TIMEOUT_SECONDS)
        if any(text_a == self.broken for text_a, _ in prepared):
            raise RuntimeError("broken")
        return [self.judge(*texts) for texts in prepared]

    @staticmethod
    def judge(text_a, text_b):
        """The answer to one pair."""
        same = float(text_a == text_b)
        return {
            "label": str(int(same)),
            "probabilities": {"0": 1 - same, "1": same},
        }

    def tokenize(self, text):
        """Returns a token for each character."""
        return tokens_of(text)

    def prepare_masks(self, text):
        """Returns the text."""
        return text

    def words(self, prepared):
        """Returns no words for no [MASK]."""
        return []
