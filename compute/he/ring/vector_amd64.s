//go:build !purego

#include "textflag.h"

// The operations of vector_amd64.go, eight residues at a time, by the multipliers of AVX512-IFMA: VPMADD52LUQ and
// VPMADD52HUQ add the low and the high 52 bits of a product of two numbers of 52 bits. There are no branches but on
// lengths and no addresses that depend on residues.

// The constants of a modulus, in the order of type vectorConstants.
#define Q Z31
#define Q2 Z30
#define NEGQ Z29
#define MASK Z28

// LOAD broadcasts q, 2q, 2^52-q and 2^52-1.
#define LOAD(c) \
	VPBROADCASTQ 0(c), Q     \
	VPBROADCASTQ 8(c), Q2    \
	VPBROADCASTQ 16(c), NEGQ \
	VPBROADCASTQ 24(c), MASK

// LAZY sets t to y·w mod q in [0, 2q) for y < 2^52, with ws = ⌊w·2^52/q⌋: y·w - ⌊y·ws/2^52⌋·q modulo 2^52.
#define LAZY(y, w, ws, t, s) \
	VPXORQ      s, s, s    \
	VPXORQ      t, t, t    \
	VPMADD52HUQ ws, y, s   \
	VPMADD52LUQ w, y, t    \
	VPMADD52LUQ NEGQ, s, t \
	VPANDQ      MASK, t, t

// BELOW subtracts m from x where x ≥ m.
#define BELOW(m, x, s) \
	VPSUBQ  m, x, s \
	VPMINUQ s, x, x

// FORWARD is the butterfly (x, y) → (x + wy, x - wy) for x, y < 4q, which is also the bound of the results.
#define FORWARD(x, y, w, ws, t, s) \
	BELOW(Q2, x, s)         \
	LAZY(y, w, ws, t, s)    \
	VPADDQ Q2, x, y         \
	VPSUBQ t, y, y          \
	VPADDQ t, x, x

// INVERSE is the butterfly (x, y) → (x + y, w(x - y)) for x, y < 2q, which is also the bound of the results.
#define INVERSE(x, y, w, ws, t, s) \
	VPADDQ Q2, x, t         \
	VPSUBQ y, t, t          \
	VPADDQ y, x, x          \
	BELOW(Q2, x, s)         \
	LAZY(t, w, ws, y, s)

// FOLD sets hi to hi·2^52 + lo mod q, in [0, q), where that is below 2^104. Z25, Z26 hold 2^52 mod q and its
// quotient, Z27 ⌊2^52/q⌋.
#define FOLDLOAD(c) \
	VPBROADCASTQ 32(c), Z25 \
	VPBROADCASTQ 40(c), Z26 \
	VPBROADCASTQ 48(c), Z27

#define FOLD(hi, lo, t, s) \
	VPSRLQ      $52, lo, s  \
	VPADDQ      s, hi, hi   \
	VPANDQ      MASK, lo, lo \
	LAZY(hi, Z25, Z26, t, s) \
	VPXORQ      s, s, s     \
	VPMADD52HUQ Z27, lo, s  \
	VPMADD52LUQ NEGQ, s, lo \
	VPANDQ      MASK, lo, lo \
	VPADDQ      t, lo, hi   \
	BELOW(Q2, hi, s)        \
	BELOW(Q, hi, s)

// func forwardOne52(a *uint64, half int, w, ws uint64, c *vectorConstants)
TEXT ·forwardOne52(SB), NOSPLIT, $0-40
	MOVQ a+0(FP), DI
	MOVQ half+8(FP), CX
	MOVQ c+32(FP), DX
	LOAD(DX)
	VPBROADCASTQ w+16(FP), Z20
	VPBROADCASTQ ws+24(FP), Z21
	LEAQ (DI)(CX*8), SI

one:
	VMOVDQU64 (DI), Z0
	VMOVDQU64 (SI), Z1
	FORWARD(Z0, Z1, Z20, Z21, Z2, Z3)
	VMOVDQU64 Z0, (DI)
	VMOVDQU64 Z1, (SI)
	ADDQ $64, DI
	ADDQ $64, SI
	SUBQ $8, CX
	JNZ  one
	VZEROUPPER
	RET

// func forwardTwo52(a, w, ws *uint64, m, quarter int, c *vectorConstants)
TEXT ·forwardTwo52(SB), NOSPLIT, $0-48
	MOVQ a+0(FP), DI
	MOVQ w+8(FP), R8
	MOVQ ws+16(FP), R9
	MOVQ m+24(FP), BX
	MOVQ quarter+32(FP), R12
	MOVQ c+40(FP), DX
	LOAD(DX)
	MOVQ BX, AX
	SHLQ $3, AX
	ADDQ AX, R8            // twiddles of the first stage, from m
	ADDQ AX, R9
	LEAQ (R8)(AX*1), R10   // and of the second, from 2m
	LEAQ (R9)(AX*1), R11
	SHLQ $3, R12           // a quarter in bytes

block:
	VPBROADCASTQ (R8), Z20
	VPBROADCASTQ (R9), Z21
	VPBROADCASTQ (R10), Z22
	VPBROADCASTQ (R11), Z23
	VPBROADCASTQ 8(R10), Z24
	VPBROADCASTQ 8(R11), Z25
	LEAQ (DI)(R12*1), SI
	LEAQ (DI)(R12*2), R13
	LEAQ (SI)(R12*2), R14
	MOVQ R12, CX

two:
	VMOVDQU64 (DI), Z0
	VMOVDQU64 (SI), Z1
	VMOVDQU64 (R13), Z2
	VMOVDQU64 (R14), Z3
	FORWARD(Z0, Z2, Z20, Z21, Z4, Z5)
	FORWARD(Z1, Z3, Z20, Z21, Z6, Z7)
	FORWARD(Z0, Z1, Z22, Z23, Z4, Z5)
	FORWARD(Z2, Z3, Z24, Z25, Z6, Z7)
	VMOVDQU64 Z0, (DI)
	VMOVDQU64 Z1, (SI)
	VMOVDQU64 Z2, (R13)
	VMOVDQU64 Z3, (R14)
	ADDQ $64, DI
	ADDQ $64, SI
	ADDQ $64, R13
	ADDQ $64, R14
	SUBQ $64, CX
	JNZ  two

	MOVQ R14, DI
	ADDQ $8, R8
	ADDQ $8, R9
	ADDQ $16, R10
	ADDQ $16, R11
	DECQ BX
	JNZ  block
	VZEROUPPER
	RET

// Lanes of two vectors a, b for stages within a vector. After VSHUFI64X2 the first stage has a0…a3 b0…b3 opposite
// a4…a7 b4…b7, the second a0 a1 b0 b1 a4 a5 b4 b5 opposite those two further, the third a0 a2 b0 b2 a4 a6 b4 b6
// opposite their neighbours.
DATA spread4<>+0(SB)/8, $0
DATA spread4<>+8(SB)/8, $0
DATA spread4<>+16(SB)/8, $0
DATA spread4<>+24(SB)/8, $0
DATA spread4<>+32(SB)/8, $1
DATA spread4<>+40(SB)/8, $1
DATA spread4<>+48(SB)/8, $1
DATA spread4<>+56(SB)/8, $1
GLOBL spread4<>(SB), RODATA|NOPTR, $64

DATA spread2<>+0(SB)/8, $0
DATA spread2<>+8(SB)/8, $0
DATA spread2<>+16(SB)/8, $2
DATA spread2<>+24(SB)/8, $2
DATA spread2<>+32(SB)/8, $1
DATA spread2<>+40(SB)/8, $1
DATA spread2<>+48(SB)/8, $3
DATA spread2<>+56(SB)/8, $3
GLOBL spread2<>(SB), RODATA|NOPTR, $64

DATA spread1<>+0(SB)/8, $0
DATA spread1<>+8(SB)/8, $1
DATA spread1<>+16(SB)/8, $4
DATA spread1<>+24(SB)/8, $5
DATA spread1<>+32(SB)/8, $2
DATA spread1<>+40(SB)/8, $3
DATA spread1<>+48(SB)/8, $6
DATA spread1<>+56(SB)/8, $7
GLOBL spread1<>(SB), RODATA|NOPTR, $64

// joinA and joinB put the lanes of the third stage in order again, evens and odds take them apart.
DATA joinA<>+0(SB)/8, $0
DATA joinA<>+8(SB)/8, $8
DATA joinA<>+16(SB)/8, $1
DATA joinA<>+24(SB)/8, $9
DATA joinA<>+32(SB)/8, $4
DATA joinA<>+40(SB)/8, $12
DATA joinA<>+48(SB)/8, $5
DATA joinA<>+56(SB)/8, $13
GLOBL joinA<>(SB), RODATA|NOPTR, $64

DATA joinB<>+0(SB)/8, $2
DATA joinB<>+8(SB)/8, $10
DATA joinB<>+16(SB)/8, $3
DATA joinB<>+24(SB)/8, $11
DATA joinB<>+32(SB)/8, $6
DATA joinB<>+40(SB)/8, $14
DATA joinB<>+48(SB)/8, $7
DATA joinB<>+56(SB)/8, $15
GLOBL joinB<>(SB), RODATA|NOPTR, $64

DATA evens<>+0(SB)/8, $0
DATA evens<>+8(SB)/8, $2
DATA evens<>+16(SB)/8, $8
DATA evens<>+24(SB)/8, $10
DATA evens<>+32(SB)/8, $4
DATA evens<>+40(SB)/8, $6
DATA evens<>+48(SB)/8, $12
DATA evens<>+56(SB)/8, $14
GLOBL evens<>(SB), RODATA|NOPTR, $64

DATA odds<>+0(SB)/8, $1
DATA odds<>+8(SB)/8, $3
DATA odds<>+16(SB)/8, $9
DATA odds<>+24(SB)/8, $11
DATA odds<>+32(SB)/8, $5
DATA odds<>+40(SB)/8, $7
DATA odds<>+48(SB)/8, $13
DATA odds<>+56(SB)/8, $15
GLOBL odds<>(SB), RODATA|NOPTR, $64

// lows and highs lead from the lanes of the second stage to those of the first.
DATA lows<>+0(SB)/8, $0
DATA lows<>+8(SB)/8, $1
DATA lows<>+16(SB)/8, $8
DATA lows<>+24(SB)/8, $9
DATA lows<>+32(SB)/8, $2
DATA lows<>+40(SB)/8, $3
DATA lows<>+48(SB)/8, $10
DATA lows<>+56(SB)/8, $11
GLOBL lows<>(SB), RODATA|NOPTR, $64

DATA highs<>+0(SB)/8, $4
DATA highs<>+8(SB)/8, $5
DATA highs<>+16(SB)/8, $12
DATA highs<>+24(SB)/8, $13
DATA highs<>+32(SB)/8, $6
DATA highs<>+40(SB)/8, $7
DATA highs<>+48(SB)/8, $14
DATA highs<>+56(SB)/8, $15
GLOBL highs<>(SB), RODATA|NOPTR, $64

// func forwardLast52(a, w, ws *uint64, n int, c *vectorConstants)
TEXT ·forwardLast52(SB), NOSPLIT, $0-40
	MOVQ a+0(FP), DI
	MOVQ w+8(FP), R8
	MOVQ ws+16(FP), R9
	MOVQ n+24(FP), CX
	MOVQ c+32(FP), DX
	LOAD(DX)
	VMOVDQU64 spread4<>(SB), Z20
	VMOVDQU64 spread2<>(SB), Z21
	VMOVDQU64 spread1<>(SB), Z22
	VMOVDQU64 joinA<>(SB), Z23
	VMOVDQU64 joinB<>(SB), Z24
	LEAQ (R8)(CX*2), R10 // twiddles from n/4
	LEAQ (R9)(CX*2), R11
	LEAQ (R8)(CX*4), R12 // from n/2
	LEAQ (R9)(CX*4), R13
	ADDQ CX, R8          // from n/8
	ADDQ CX, R9

last:
	VMOVDQU64 (DI), Z0
	VMOVDQU64 64(DI), Z1
	VSHUFI64X2 $0x44, Z1, Z0, Z2
	VSHUFI64X2 $0xee, Z1, Z0, Z3
	VBROADCASTI32X4 (R8), Z10
	VBROADCASTI32X4 (R9), Z11
	VPERMQ Z10, Z20, Z10
	VPERMQ Z11, Z20, Z11
	FORWARD(Z2, Z3, Z10, Z11, Z6, Z7)

	VSHUFI64X2 $0x88, Z3, Z2, Z0
	VSHUFI64X2 $0xdd, Z3, Z2, Z1
	VBROADCASTI64X4 (R10), Z10
	VBROADCASTI64X4 (R11), Z11
	VPERMQ Z10, Z21, Z10
	VPERMQ Z11, Z21, Z11
	FORWARD(Z0, Z1, Z10, Z11, Z6, Z7)

	VPUNPCKLQDQ Z1, Z0, Z2
	VPUNPCKHQDQ Z1, Z0, Z3
	VPERMQ (R12), Z22, Z10
	VPERMQ (R13), Z22, Z11
	FORWARD(Z2, Z3, Z10, Z11, Z6, Z7)
	BELOW(Q2, Z2, Z6)
	BELOW(Q2, Z3, Z7)
	BELOW(Q, Z2, Z6)
	BELOW(Q, Z3, Z7)

	VMOVDQA64 Z2, Z0
	VPERMT2Q Z3, Z23, Z0
	VPERMT2Q Z3, Z24, Z2
	VMOVDQU64 Z0, (DI)
	VMOVDQU64 Z2, 64(DI)
	ADDQ $128, DI
	ADDQ $16, R8
	ADDQ $16, R9
	ADDQ $32, R10
	ADDQ $32, R11
	ADDQ $64, R12
	ADDQ $64, R13
	SUBQ $16, CX
	JNZ  last
	VZEROUPPER
	RET

// func inverseFirst52(a, w, ws *uint64, n int, c *vectorConstants)
TEXT ·inverseFirst52(SB), NOSPLIT, $0-40
	MOVQ a+0(FP), DI
	MOVQ w+8(FP), R8
	MOVQ ws+16(FP), R9
	MOVQ n+24(FP), CX
	MOVQ c+32(FP), DX
	LOAD(DX)
	VMOVDQU64 spread4<>(SB), Z20
	VMOVDQU64 spread2<>(SB), Z21
	VMOVDQU64 spread1<>(SB), Z22
	VMOVDQU64 evens<>(SB), Z23
	VMOVDQU64 odds<>(SB), Z24
	VMOVDQU64 lows<>(SB), Z25
	VMOVDQU64 highs<>(SB), Z26
	LEAQ (R8)(CX*2), R10
	LEAQ (R9)(CX*2), R11
	LEAQ (R8)(CX*4), R12
	LEAQ (R9)(CX*4), R13
	ADDQ CX, R8
	ADDQ CX, R9

first:
	VMOVDQU64 (DI), Z0
	VMOVDQU64 64(DI), Z1
	VMOVDQA64 Z0, Z2
	VPERMT2Q Z1, Z23, Z0
	VPERMT2Q Z1, Z24, Z2
	VPERMQ (R12), Z22, Z10
	VPERMQ (R13), Z22, Z11
	INVERSE(Z0, Z2, Z10, Z11, Z6, Z7)

	VPUNPCKLQDQ Z2, Z0, Z1
	VPUNPCKHQDQ Z2, Z0, Z3
	VBROADCASTI64X4 (R10), Z10
	VBROADCASTI64X4 (R11), Z11
	VPERMQ Z10, Z21, Z10
	VPERMQ Z11, Z21, Z11
	INVERSE(Z1, Z3, Z10, Z11, Z6, Z7)

	VMOVDQA64 Z1, Z2
	VPERMT2Q Z3, Z25, Z1
	VPERMT2Q Z3, Z26, Z2
	VBROADCASTI32X4 (R8), Z10
	VBROADCASTI32X4 (R9), Z11
	VPERMQ Z10, Z20, Z10
	VPERMQ Z11, Z20, Z11
	INVERSE(Z1, Z2, Z10, Z11, Z6, Z7)

	VSHUFI64X2 $0x44, Z2, Z1, Z0
	VSHUFI64X2 $0xee, Z2, Z1, Z3
	VMOVDQU64 Z0, (DI)
	VMOVDQU64 Z3, 64(DI)
	ADDQ $128, DI
	ADDQ $16, R8
	ADDQ $16, R9
	ADDQ $32, R10
	ADDQ $32, R11
	ADDQ $64, R12
	ADDQ $64, R13
	SUBQ $16, CX
	JNZ  first
	VZEROUPPER
	RET

// func inverseOne52(a, w, ws *uint64, m, half int, c *vectorConstants)
TEXT ·inverseOne52(SB), NOSPLIT, $0-48
	MOVQ a+0(FP), DI
	MOVQ w+8(FP), R8
	MOVQ ws+16(FP), R9
	MOVQ m+24(FP), BX
	MOVQ half+32(FP), R12
	MOVQ c+40(FP), DX
	LOAD(DX)
	LEAQ (R8)(BX*8), R8
	LEAQ (R9)(BX*8), R9
	SHLQ $3, R12

block:
	VPBROADCASTQ (R8), Z20
	VPBROADCASTQ (R9), Z21
	LEAQ (DI)(R12*1), SI
	MOVQ R12, CX

one:
	VMOVDQU64 (DI), Z0
	VMOVDQU64 (SI), Z1
	INVERSE(Z0, Z1, Z20, Z21, Z2, Z3)
	VMOVDQU64 Z0, (DI)
	VMOVDQU64 Z1, (SI)
	ADDQ $64, DI
	ADDQ $64, SI
	SUBQ $64, CX
	JNZ  one

	MOVQ SI, DI
	ADDQ $8, R8
	ADDQ $8, R9
	DECQ BX
	JNZ  block
	VZEROUPPER
	RET

// func inverseTwo52(a, w, ws *uint64, m, quarter int, c *vectorConstants)
TEXT ·inverseTwo52(SB), NOSPLIT, $0-48
	MOVQ a+0(FP), DI
	MOVQ w+8(FP), R8
	MOVQ ws+16(FP), R9
	MOVQ m+24(FP), BX
	MOVQ quarter+32(FP), R12
	MOVQ c+40(FP), DX
	LOAD(DX)
	MOVQ BX, AX
	SHLQ $3, AX
	ADDQ AX, R8
	ADDQ AX, R9
	LEAQ (R8)(AX*1), R10
	LEAQ (R9)(AX*1), R11
	SHLQ $3, R12

block:
	VPBROADCASTQ (R8), Z20
	VPBROADCASTQ (R9), Z21
	VPBROADCASTQ (R10), Z22
	VPBROADCASTQ (R11), Z23
	VPBROADCASTQ 8(R10), Z24
	VPBROADCASTQ 8(R11), Z25
	LEAQ (DI)(R12*1), SI
	LEAQ (DI)(R12*2), R13
	LEAQ (SI)(R12*2), R14
	MOVQ R12, CX

two:
	VMOVDQU64 (DI), Z0
	VMOVDQU64 (SI), Z1
	VMOVDQU64 (R13), Z2
	VMOVDQU64 (R14), Z3
	INVERSE(Z0, Z1, Z22, Z23, Z4, Z5)
	INVERSE(Z2, Z3, Z24, Z25, Z6, Z7)
	INVERSE(Z0, Z2, Z20, Z21, Z4, Z5)
	INVERSE(Z1, Z3, Z20, Z21, Z6, Z7)
	VMOVDQU64 Z0, (DI)
	VMOVDQU64 Z1, (SI)
	VMOVDQU64 Z2, (R13)
	VMOVDQU64 Z3, (R14)
	ADDQ $64, DI
	ADDQ $64, SI
	ADDQ $64, R13
	ADDQ $64, R14
	SUBQ $64, CX
	JNZ  two

	MOVQ R14, DI
	ADDQ $8, R8
	ADDQ $8, R9
	ADDQ $16, R10
	ADDQ $16, R11
	DECQ BX
	JNZ  block
	VZEROUPPER
	RET

// func inverseLast52(a, w, ws *uint64, quarter int, last *[4]uint64, c *vectorConstants)
TEXT ·inverseLast52(SB), NOSPLIT, $0-48
	MOVQ a+0(FP), DI
	MOVQ w+8(FP), R8
	MOVQ ws+16(FP), R9
	MOVQ quarter+24(FP), R12
	MOVQ last+32(FP), AX
	MOVQ c+40(FP), DX
	LOAD(DX)
	VPBROADCASTQ 0(AX), Z18 // 1/n
	VPBROADCASTQ 8(AX), Z19
	VPBROADCASTQ 16(AX), Z20 // the last twiddle over n
	VPBROADCASTQ 24(AX), Z21
	VPBROADCASTQ 16(R8), Z22
	VPBROADCASTQ 16(R9), Z23
	VPBROADCASTQ 24(R8), Z24
	VPBROADCASTQ 24(R9), Z25
	SHLQ $3, R12
	LEAQ (DI)(R12*1), SI
	LEAQ (DI)(R12*2), R13
	LEAQ (SI)(R12*2), R14

last:
	VMOVDQU64 (DI), Z0
	VMOVDQU64 (SI), Z1
	VMOVDQU64 (R13), Z2
	VMOVDQU64 (R14), Z3
	INVERSE(Z0, Z1, Z22, Z23, Z4, Z5)
	INVERSE(Z2, Z3, Z24, Z25, Z6, Z7)
	VPADDQ Z2, Z0, Z8
	VPADDQ Q2, Z0, Z9
	VPSUBQ Z2, Z9, Z9
	VPADDQ Z3, Z1, Z10
	VPADDQ Q2, Z1, Z11
	VPSUBQ Z3, Z11, Z11
	LAZY(Z8, Z18, Z19, Z0, Z4)
	LAZY(Z10, Z18, Z19, Z1, Z5)
	LAZY(Z9, Z20, Z21, Z2, Z6)
	LAZY(Z11, Z20, Z21, Z3, Z7)
	BELOW(Q, Z0, Z4)
	BELOW(Q, Z1, Z5)
	BELOW(Q, Z2, Z6)
	BELOW(Q, Z3, Z7)
	VMOVDQU64 Z0, (DI)
	VMOVDQU64 Z1, (SI)
	VMOVDQU64 Z2, (R13)
	VMOVDQU64 Z3, (R14)
	ADDQ $64, DI
	ADDQ $64, SI
	ADDQ $64, R13
	ADDQ $64, R14
	SUBQ $64, R12
	JNZ  last
	VZEROUPPER
	RET

// func dot52(out *uint64, a, b *[]uint64, terms, words int, c *vectorConstants)
TEXT ·dot52(SB), NOSPLIT, $0-48
	MOVQ out+0(FP), DI
	MOVQ a+8(FP), R8
	MOVQ b+16(FP), R9
	MOVQ terms+24(FP), R10
	MOVQ words+32(FP), CX
	MOVQ c+40(FP), DX
	LOAD(DX)
	FOLDLOAD(DX)
	XORQ BX, BX // offset in bytes

words:
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1
	MOVQ R8, R11
	MOVQ R9, R12
	MOVQ R10, AX

term:
	MOVQ (R11), SI
	MOVQ (R12), R13
	VMOVDQU64 (SI)(BX*1), Z2
	VMOVDQU64 (R13)(BX*1), Z3
	VPMADD52HUQ Z3, Z2, Z0
	VPMADD52LUQ Z3, Z2, Z1
	ADDQ $24, R11
	ADDQ $24, R12
	DECQ AX
	JNZ  term

	FOLD(Z0, Z1, Z4, Z5)
	VMOVDQU64 Z0, (DI)(BX*1)
	ADDQ $64, BX
	SUBQ $8, CX
	JNZ  words
	VZEROUPPER
	RET

// func combine52(out *uint64, rows *[]uint64, weights *uint64, terms, words int, c *vectorConstants)
TEXT ·combine52(SB), NOSPLIT, $0-48
	MOVQ out+0(FP), DI
	MOVQ rows+8(FP), R8
	MOVQ weights+16(FP), R9
	MOVQ terms+24(FP), R10
	MOVQ words+32(FP), CX
	MOVQ c+40(FP), DX
	LOAD(DX)
	FOLDLOAD(DX)
	XORQ BX, BX

words:
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1
	MOVQ R8, R11
	MOVQ R9, R12
	MOVQ R10, AX

term:
	MOVQ (R11), SI
	VMOVDQU64 (SI)(BX*1), Z2
	VPBROADCASTQ (R12), Z3
	VPMADD52HUQ Z3, Z2, Z0
	VPMADD52LUQ Z3, Z2, Z1
	ADDQ $24, R11
	ADDQ $8, R12
	DECQ AX
	JNZ  term

	FOLD(Z0, Z1, Z4, Z5)
	VMOVDQU64 Z0, (DI)(BX*1)
	ADDQ $64, BX
	SUBQ $8, CX
	JNZ  words
	VZEROUPPER
	RET

// func scale52(out, a *uint64, words int, w, ws uint64, c *vectorConstants)
TEXT ·scale52(SB), NOSPLIT, $0-48
	MOVQ out+0(FP), DI
	MOVQ a+8(FP), SI
	MOVQ words+16(FP), CX
	MOVQ c+40(FP), DX
	LOAD(DX)
	VPBROADCASTQ w+24(FP), Z20
	VPBROADCASTQ ws+32(FP), Z21

scale:
	VMOVDQU64 (SI), Z0
	LAZY(Z0, Z20, Z21, Z1, Z2)
	BELOW(Q, Z1, Z2)
	VMOVDQU64 Z1, (DI)
	ADDQ $64, SI
	ADDQ $64, DI
	SUBQ $8, CX
	JNZ  scale
	VZEROUPPER
	RET

// func fixed52(hi, lo *uint64, rows *[]uint64, fractions *uint64, terms, words int)
TEXT ·fixed52(SB), NOSPLIT, $0-48
	MOVQ hi+0(FP), DI
	MOVQ lo+8(FP), SI
	MOVQ rows+16(FP), R8
	MOVQ fractions+24(FP), R9
	MOVQ terms+32(FP), R10
	MOVQ words+40(FP), CX
	MOVQ $0x000fffffffffffff, AX
	VPBROADCASTQ AX, MASK
	MOVQ $0x0008000000000000, AX // one half
	VPBROADCASTQ AX, Z27
	XORQ BX, BX

words:
	VPXORQ Z0, Z0, Z0     // units
	VMOVDQA64 Z27, Z1     // 2^-52
	VPXORQ Z2, Z2, Z2     // 2^-104
	MOVQ R8, R11
	MOVQ R9, R12
	MOVQ R10, AX

term:
	MOVQ (R11), R13
	VMOVDQU64 (R13)(BX*1), Z3
	VPBROADCASTQ (R12), Z4
	VPSRLQ $12, Z4, Z5   // the upper 52 bits of the fraction
	VPSLLQ $52, Z4, Z6   // the lower 12, as the upper ones of 52
	VPSRLQ $12, Z6, Z6
	VPMADD52HUQ Z5, Z3, Z0
	VPMADD52LUQ Z5, Z3, Z1
	VPMADD52HUQ Z6, Z3, Z1
	VPMADD52LUQ Z6, Z3, Z2
	ADDQ $24, R11
	ADDQ $8, R12
	DECQ AX
	JNZ  term

	VPSRLQ $52, Z2, Z3
	VPADDQ Z3, Z1, Z1
	VPSRLQ $52, Z1, Z3
	VPADDQ Z3, Z0, Z0
	VPANDQ MASK, Z2, Z2
	VPSRLQ $40, Z2, Z2
	VPSLLQ $12, Z1, Z1
	VPORQ  Z2, Z1, Z1
	VMOVDQU64 Z0, (DI)(BX*1)
	VMOVDQU64 Z1, (SI)(BX*1)
	ADDQ $64, BX
	SUBQ $8, CX
	JNZ  words
	VZEROUPPER
	RET
