"""Constants of the sign protocol: block comparison tables and the join polynomial.

A window of 4 * blocks bits is compared block by block (protocol of `schemes/masked/relu.py`).
"Negative" is  G_top ^ P_top (G_n-2 ^ P_n-2 (... G_0)), where G_i says "less" and P_i "equal" in
block i, and the top block's bit 3 is the sign bit. All blocks but the top G are opened under masks;
the product of opened bits and masks expands into monomials of masks, which the dealer knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
import numpy.typing as npt

U16 = npt.NDArray[np.uint16]
U64 = npt.NDArray[np.uint64]


def _block_table(rule: object) -> U16:
    """Entry M: the set of R (as 16 bits) for which `rule(M, R)` holds."""
    assert callable(rule)
    return np.array([sum(1 << r for r in range(16) if rule(m, r)) for m in range(16)], dtype=np.uint16)


LESS = _block_table(lambda m, r: m < r)
EQUAL = _block_table(lambda m, r: m == r)
# The top block holds the sign bit (3) above three ordinary bits.
TOP_NEGATIVE = _block_table(lambda m, r: ((m >> 3) ^ (r >> 3) ^ ((m & 7) < (r & 7))) == 1)
TOP_EQUAL = _block_table(lambda m, r: (m & 7) == (r & 7))

PARITY16: npt.NDArray[np.uint8] = np.array([bin(v).count("1") & 1 for v in range(1 << 16)], dtype=np.uint8)


@dataclass(frozen=True)
class JoinTables:
    """The join polynomial for one number of blocks.

    `opened` bits, from bit 0: P_top, then G_i, P_i for i = top-1 .. 1, then G_0.
    `monomials`: for each masks' pattern, the products of two and more masks, one bit each.
    `coefficients`: for each opened pattern, which masks (low bits) and monomials (above) enter.
    `constant`: for each opened pattern, the part without any mask.
    """

    blocks: int
    opened: int
    products: int
    monomials: U64
    coefficients: U64
    constant: npt.NDArray[np.uint8]

    @property
    def product_dtype(self) -> np.dtype[np.unsignedinteger]:
        """Smallest type that holds one bit per dealt product."""
        return np.dtype("<u2" if self.products <= 16 else "<u8")


@cache
def join_tables(blocks: int) -> JoinTables:
    """Tables for a window of 4 * `blocks` bits; 2 to 5 blocks."""
    opened = 2 * blocks - 2
    terms: list[tuple[int, ...]] = []  # each term: the opened bits whose product it is
    equal_bits: tuple[int, ...] = ()
    position = 0
    for block in range(blocks - 2, -1, -1):
        equal_bits = (*equal_bits, position)
        less_bit = position + 1
        terms.append((*equal_bits, less_bit))
        position += 2
        if block == 0:
            break
    products: dict[tuple[int, ...], int] = {}
    for term in terms:
        for size in range(2, len(term) + 1):
            for subset in combinations(term, size):
                products.setdefault(subset, len(products))
    patterns = 1 << opened
    monomials = np.zeros(patterns, dtype=np.uint64)
    coefficients = np.zeros(patterns, dtype=np.uint64)
    constant = np.zeros(patterns, dtype=np.uint8)
    for pattern in range(patterns):
        bit = [(pattern >> i) & 1 for i in range(opened)]
        monomials[pattern] = sum(
            int(all(bit[v] for v in subset)) << index for subset, index in products.items()
        )
        coefficient = 0
        for term in terms:
            constant[pattern] ^= int(all(bit[v] for v in term))
            for size in range(1, len(term) + 1):
                for subset in combinations(term, size):
                    rest = all(bit[v] for v in term if v not in subset)
                    place = subset[0] if size == 1 else opened + products[subset]
                    coefficient ^= int(rest) << place
        coefficients[pattern] = coefficient
    return JoinTables(blocks, opened, len(products), monomials, coefficients, constant)
