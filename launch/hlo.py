"""Analysis of the communication and memory traffic of a compiled program from its text (HLO)."""

import collections
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
# The scope of computations in `pivq_jax.matching.match`; transformations put it in brackets.
MATCHING = re.compile(r"(^|[/(])matching[/)]")

# Instructions that move nothing, or whose beginning has been counted.
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all")
_SLICES = ("slice", "dynamic-slice", "gather")


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    shapes: tuple[int, ...]  # size of each part of the result in bytes
    in_memory: tuple[int, ...]  # the same, but 0 for what is in the memory of the cores themselves
    opcode: str
    attributes: str  # the text after the opcode

    @property
    def scope(self) -> str:
        """The name of its origin in the traced program, '' if unknown."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def operands(self) -> list[str]:
        """The names of its operands."""
        return re.findall(r"%([\w.-]+)", self.attributes[: _end_of_brackets(self.attributes)])

    @property
    def called(self) -> list[str]:
        """The names of the computations that it calls."""
        names = re.findall(
            r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)="
            r"%?([\w.-]+)",
            self.attributes,
        )
        for listed in re.findall(r"\b(?:branch|called)_computations=\{([^}]*)\}", self.attributes):
            names += re.findall(r"%?([\w.-]+)", listed)
        return names

    @property
    def aliases(self) -> list[tuple[int, int]]:
        """The parts of the result that are an operand, with its number."""
        found = re.search(r"output_to_operand_aliasing=\{(.*?\))\}", self.attributes)
        pairs = re.findall(r"\{(\d*)\}: \((\d+),", found[1]) if found else []
        return [(int(result or 0), int(operand)) for result, operand in pairs]

    @property
    def trips(self) -> int:
        """The number of iterations of a loop, 1 if unknown to the compiler."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', self.attributes)
        return int(found[1]) if found else 1


class Collective(NamedTuple):
    """A collective operation with all its executions in a step."""

    kind: str  # one of `KINDS`
    moved: float  # bytes sent per device and step, by a ring algorithm
    scope: str  # see `Instruction.scope`


class Program:
    """The computations of a compiled program, given `compiled.as_text()` and how many devices it
    runs on. Those asked for by the name '' are the program's own, the entry.
    """

    def __init__(self, text: str, devices: int) -> None:
        self._devices = devices
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        current: list[Instruction] = []
        for line in text.splitlines():
            if header := re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line):
                current = self.computations.setdefault(header[2], [])
                self.entry = header[2] if header[1] else self.entry
            elif instruction := _parse(line):
                current.append(instruction)

    def walk(self, name: str = "", times: int = 1) -> Iterator[tuple[str, Instruction, int]]:
        """Yields the instructions of a computation, run so many times, and of all that it calls.

        Each one comes with the name of its computation and how often it is executed.
        """
        name = name or self.entry
        for instruction in self.computations.get(name, ()):
            yield name, instruction, times
            if instruction.opcode.removesuffix("-start") in KINDS:
                continue  # it calls a scalar addition
            for called in instruction.called:
                yield from self.walk(called, times * instruction.trips)

    def collectives(self, name: str = "") -> list[Collective]:
        """Lists the collectives of a computation and of all computations that it calls."""
        found = []
        parts: dict[str, str] = {}  # of a collective that runs beside several fusions, by channel
        for computation, instruction, times in self.walk(name):
            kind = instruction.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            channel = re.search(r"channel_id=(\d+)", instruction.attributes)
            if channel and parts.setdefault(channel[1], instruction.name) != instruction.name:
                continue
            # TPUs fuse an all-reduce with slicing, which amounts to a reduce-scatter.
            scattered = kind == "all-reduce" and "all-reduce-scatter" in computation
            kind = "reduce-scatter" if scattered else kind
            moved = times * self._moved(instruction, kind, scattered)
            found.append(Collective(kind, moved, instruction.scope))
        return found

    def moved_by_kind(self) -> dict[str, float]:
        """Returns the bytes sent per device and step by kind of collective."""
        total: dict[str, float] = collections.defaultdict(float)
        for collective in self.collectives():
            total[collective.kind] += collective.moved
        return dict(total)

    def traffic(self, name: str = "") -> float:
        """Returns the bytes to and from the main memory of a device in one execution of a step.

        A slice counts with its own size, not with that of the array that it is read from or written
        to. Of a condition, the branch with most traffic counts.
        """
        known = {x.name: x for x in self.computations.get(name or self.entry, [])}
        total = 0.0
        for instruction in known.values():
            opcode = instruction.opcode
            if opcode in ("while", "call", "conditional"):
                inside = [self.traffic(each) for each in instruction.called]
                once = max(inside) if opcode == "conditional" else sum(inside)
                total += instruction.trips * once
            elif opcode not in _FREE and not opcode.endswith("-done"):
                total += self._accessed(instruction, known)
        return total

    def _accessed(self, instruction: Instruction, known: dict[str, Instruction]) -> float:
        """The bytes that an instruction reads and writes in main memory."""
        read = [sum(known[x].in_memory) if x in known else 0 for x in instruction.operands]
        written = sum(instruction.in_memory)
        match instruction.opcode:
            case "copy-start" | "slice-start":  # of (from, to, context) or (to, from, context)
                return min(instruction.shapes[:2]) * sum(x > 0 for x in instruction.in_memory[:2])
            case opcode if opcode.endswith("-start"):  # operands are a part of the result
                return written
            case opcode if opcode in _SLICES:
                return written + min(read[0], sum(instruction.shapes)) + sum(read[1:])
            case "dynamic-update-slice":
                return 2 * read[1]
            case "fusion":
                return self._accessed_by_fusion(instruction, read)
        return sum(read) + written

    def _accessed_by_fusion(self, instruction: Instruction, read: list[int]) -> float:
        body = {x.name: x for x in self.computations.get(instruction.called[0], [])}
        written = sum(instruction.in_memory)
        if any(found.opcode in KINDS for found in body.values()):
            # A collective that began before goes on meanwhile; what it has is handed on in place.
            for result, handed in instruction.aliases:
                written -= instruction.in_memory[result]
                read[handed] = 0
        uses = collections.defaultdict(list)
        for found in body.values():
            for position, operand in enumerate(found.operands):
                uses[operand].append((found, position))

        def used(name: str) -> Iterator[tuple[Instruction, int]]:
            for found, position in uses[name]:
                yield from used(found.name) if found.opcode == "bitcast" else [(found, position)]

        for parameter in (x for x in body.values() if x.opcode == "parameter"):
            number = int(parameter.attributes.split(")")[0])
            users = list(used(parameter.name))
            if any(position for _, position in users):
                continue
            if all(found.opcode in _SLICES for found, _ in users):
                read[number] = min(read[number], sum(sum(found.shapes) for found, _ in users))
            elif all(found.opcode == "dynamic-update-slice" for found, _ in users):
                for found, _ in users:  # in place
                    update = body.get(found.operands[1])
                    written += (sum(update.shapes) if update else 0) - read[number]
                read[number] = 0
        return sum(read) + max(written, 0)

    def collectives_inside_matching(self) -> list[Collective]:
        """Lists the collectives in the scope of matching, and those in its loops."""
        found = [x for x in self.collectives() if MATCHING.search(x.scope)]
        for _, instruction, _ in self.walk():
            if instruction.opcode == "while" and MATCHING.search(instruction.scope):
                for called in instruction.called:
                    found += self.collectives(called)
        return found

    def _moved(self, instruction: Instruction, kind: str, scattered: bool) -> float:
        shapes = instruction.shapes
        if instruction.opcode.endswith("-start") and kind != "all-reduce" and len(shapes) > 1:
            # (operands, results, and possibly two more numbers)
            shapes = shapes[1:2] if kind == "collective-permute" else shapes[len(shapes) // 2 :]
        size, group = sum(shapes), self._group(instruction)
        share = (group - 1) / group
        if kind == "all-reduce":
            return 2 * size * share
        if kind == "reduce-scatter" and not scattered:
            return size * (group - 1)  # `size` is the part that each device keeps
        return size if kind == "collective-permute" else size * share

    def _group(self, instruction: Instruction) -> int:
        """The number of devices that take part together."""
        text = instruction.attributes
        if found := re.search(r"replica_groups=\[\d+,(\d+)\]<=", text):
            return int(found[1])
        if found := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
            return len(found[1].split(","))
        return self._devices


def _parse(line: str) -> Instruction | None:
    """Parses `%a.1 = (f32[8,2]{1,0}, u32[]) all-gather-start(%b), channel_id=1, ...` and such."""
    # In a type, no space is followed by a word with a bracket.
    found = re.match(r"\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)", line)
    if not found:
        return None
    name, type_, opcode, attributes = found.groups()
    parts = re.findall(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?", type_)
    shapes = tuple(_bytes(dtype, dimensions) for dtype, dimensions, _ in parts)
    on_chip = [bool(re.search(r"S\([1-9]", layout)) for *_, layout in parts]
    in_memory = tuple(0 if x else size for x, size in zip(on_chip, shapes, strict=True))
    return Instruction(name, shapes, in_memory, opcode, attributes)


def _end_of_brackets(text: str) -> int:
    """The end of what is in brackets, of which the first one has been left out."""
    depth = 1
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position
    return len(text)


def _bytes(dtype: str, dimensions: str) -> int:
    found = re.match(r"[a-z]+(\d+)", dtype)
    bits = int(found[1]) if found else 8 * (dtype == "pred")  # a token has none
    return math.prod(int(x) for x in dimensions.split(",") if x) * bits // 8
