"""The simulator's figures for the policy that the product has: w 3, a budget of .05, its own S3-FIFO.

Each line: a trace and a mix of writes; then, at 1, 5 and 20 % of writes, the share of cold reads that were
avoided, the share of loads ahead that were wasted, and the origin's load as a share of that without.
"""

from __future__ import annotations

from typing import NamedTuple

RATES = (0.01, 0.05, 0.2)


class Found(NamedTuple):
    """Of one row."""

    avoided: float
    waste: float
    load: float


TABLE = """
orm-busy uniform  .839 .605 1.010   .457 .572 1.030   .253 .467 1.040
orm-busy popular  .991 .363 1.014   .561 .382 1.036   .165 .460 1.040
orm-busy recent   .964 .299 1.020   .741 .187 1.022   .254 .219 1.034
orm-busy bursty   .803 .391 1.003   .821 .412 1.019   .399 .443 1.036
orm-busy tail     .840 .558 1.004   .749 .461 1.010   .605 .401 1.032
orm-busy mixed    .902 .401 1.010   .811 .326 1.029   .374 .247 1.033
w106 uniform      .719 .472 1.018   .476 .430 1.031   .321 .266 1.025
w106 popular      .984 .180 1.018   .823 .152 1.032   .264 .212 1.038
w106 recent       .964 .190 1.021   .820 .127 1.034   .308 .158 1.035
w106 bursty       .762 .426 1.013   .656 .319 1.035   .338 .257 1.037
w106 tail         .834 .432 1.005   .796 .331 1.018   .752 .216 1.038
w106 mixed        .882 .313 1.016   .795 .235 1.039   .424 .168 1.040
oltp uniform      .919 .582 1.001   .712 .536 1.002   .661 .447 1.003
oltp popular      .998 .207 .998   .997 .236 .993   .883 .271 .993
oltp recent       .936 .237 .999   .923 .237 .993   .749 .192 .977
oltp bursty       .699 .374 1.000   .713 .350 1.000   .696 .365 1.000
oltp tail         .898 .468 1.000   .830 .370 1.001   .762 .285 .999
oltp mixed        .909 .397 1.001   .876 .325 1.000   .836 .295 .996
loop uniform      .998 .006 1.005   .998 .024 1.024   .541 .077 1.045
loop popular      .999 .006 1.005   .999 .027 1.026   .537 .077 1.044
loop recent       .998 .005 1.004   .997 .026 1.026   .852 .050 1.044
loop bursty       .629 .072 1.027   .644 .066 1.039   .629 .066 1.043
loop tail         .832 .058 1.015   .838 .033 1.016   .825 .027 1.015
loop mixed        .861 .056 1.034   .890 .050 1.041   .861 .051 1.044
cpio uniform      .919 .566 1.009   .427 .535 1.004   .206 .542 1.010
cpio popular      .954 .324 1.008   .965 .365 1.011   .375 .466 1.018
cpio recent       .855 .545 1.006   .727 .501 1.012   .401 .417 1.029
cpio bursty       .632 .525 1.001   .669 .345 1.005   .568 .448 1.007
cpio tail         .605 .745 1.003   .457 .500 1.004   .360 .231 1.001
cpio mixed        .760 .623 .999   .655 .545 1.006   .438 .438 1.024
zipf uniform      .937 .553 1.002   .798 .501 1.005   .727 .462 1.018
zipf popular      .995 .328 1.001   .986 .325 1.007   .878 .304 1.015
zipf recent       .979 .176 1.000   .965 .176 .999   .734 .177 1.003
zipf bursty       .747 .461 1.001   .749 .438 1.003   .757 .441 1.012
zipf tail         .735 .582 1.001   .628 .478 1.002   .661 .443 1.007
zipf mixed        .934 .318 1.001   .936 .279 1.004   .902 .265 1.014
"""


def figures() -> dict[tuple[str, str, float], Found]:
    """By trace, mix and rate."""
    found = {}
    for line in TABLE.strip().splitlines():
        trace, mix, *numbers = line.split()
        for at, rate in enumerate(RATES):
            found[trace, mix, rate] = Found(*map(float, numbers[3 * at : 3 * at + 3]))
    return found
