//! Decoded instructions.

/// A register: its position among those of 32 bits (which also hold predicates, as 0 or 1, and 16-bit values) or among
/// those of 64 bits.
pub type Register = u32;

/// An instruction as the emulator executes it.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it does.
    pub code: Code,
    /// The threads that execute it: those where this predicate holds, or does not.
    pub guard: Option<(Register, bool)>,
    /// The result, where there is one.
    pub d: Register,
    /// Sources.
    pub a: Register,
    /// Second source.
    pub b: Register,
    /// Third source.
    pub c: Register,
    /// More registers: of vectors, fragments, or a second result.
    pub list: Vec<Register>,
    /// Added to the addresses in `a` and `b`.
    pub offsets: (i64, i64),
    /// The instruction's place in the entry.
    pub source: u32,
}

/// An integer type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Int {
    U8,
    S8,
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
}

impl Int {
    pub fn bytes(self) -> usize {
        match self {
            Int::U8 | Int::S8 => 1,
            Int::U16 | Int::S16 => 2,
            Int::U32 | Int::S32 => 4,
            Int::U64 | Int::S64 => 8,
        }
    }

    pub fn signed(self) -> bool {
        matches!(self, Int::S8 | Int::S16 | Int::S32 | Int::S64)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Add,
    Subtract,
    MultiplyLow,
    MultiplyHigh,
    Divide,
    Remainder,
    Min,
    Max,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    Not,
    /// Of 0 and 1.
    NotPredicate,
    Negate,
    Absolute,
    CountOnes,
    CountLeadingZeros,
    Reverse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Float1 {
    Negate,
    Absolute,
    SquareRoot,
    Reciprocal,
    ReciprocalRoot,
    Power2,
    Log2,
    Sine,
    Cosine,
    Tanh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Float2 {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// The number, if one is NaN.
    Min,
    Max,
    /// NaN, if one is.
    MinNan,
    MaxNan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// A type of values compared, and whether a comparison of floats holds where one is NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    Int(Int),
    Float {
        unordered: bool,
    },
    /// Whether both are numbers, or one is NaN.
    Order {
        numbers: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    Int(Int),
    F32,
    F64,
    Bf16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    Nearest,
    Zero,
    Down,
    Up,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    Global,
    Shared,
    Local,
    Constant,
    Generic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Atomic {
    AddFloat,
    Add,
    Min,
    Max,
    And,
    Or,
    Exchange,
    CompareExchange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    Butterfly,
    Up,
    Down,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    Any,
    All,
    Ballot,
    /// The threads that execute it.
    Active,
}

/// The operation of an instruction on its registers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Code {
    Move32,
    Move64,
    Binary(Binary, Int),
    Unary(Unary, Int),
    /// The whole product, of twice the bits.
    Wide(Int),
    /// `a·b + c`, low bits.
    MultiplyAdd(Int),
    /// The whole product of 32 bits plus a number of 64.
    WideAdd(Int),
    /// Bits `b..b + c` of `a`.
    Extract {
        signed: bool,
    },
    /// The same of 64 bits.
    ExtractWide {
        signed: bool,
    },
    /// `b` with the sign of `a`.
    CopySign,
    /// `b` with its bits from `c` on, as many as the list's register says, replaced by those of `a`.
    Insert,
    /// Bytes of `a` and `b`, chosen by `c`.
    Permute,
    /// 32 bits out of two registers.
    Funnel {
        left: bool,
        wrap: bool,
    },
    /// Any function of three bits, as a table.
    Logic(u8),
    Float1(Float1),
    Float2(Float2),
    FusedMultiplyAdd,
    /// The same on two f32 in 64 bits.
    Pair(Float2),
    PairFusedMultiplyAdd,
    Double(Float2),
    DoubleFusedMultiplyAdd,
    Convert {
        from: Number,
        to: Number,
        round: Round,
        to_integer: bool,
    },
    /// To 10 bits of mantissa, ties away from zero.
    ToTf32,
    /// Two f32 to two bf16 in 32 bits, `a` the upper.
    PackBf16,
    /// Compares, and combines the result with the predicate `c`.
    Set {
        how: Compare,
        of: Compared,
        with: Option<Binary>,
    },
    Select32,
    Select64,
    /// Two registers of 32 bits as one of 64.
    Pack64,
    Unpack64,
    /// Two values of 16 bits as one of 32.
    Pack32,
    Unpack32,
    Load {
        memory: Memory,
        of: Int,
    },
    Store {
        memory: Memory,
        of: Int,
    },
    Atomic {
        memory: Memory,
        how: Atomic,
        of: Int,
        result: bool,
    },
    /// From global to shared memory, so many bytes; `c` says how many of them to read.
    CopyAsync {
        bytes: usize,
    },
    Commit,
    /// Until at most so many groups of copies are on their way.
    Wait(usize),
    Barrier,
    /// Orders memory, which here is always in order.
    Nothing,
    Shuffle(Shuffle),
    Vote(Vote),
    LoadMatrix {
        count: usize,
        transposed: bool,
    },
    /// Rows × columns × depth: 16 × 8 × 8 of tf32, or 16 × 8 × 16 of bf16.
    Mma {
        bf16: bool,
    },
    /// The same of a warpgroup: 64 rows × columns × 8 of tf32 or 16 of bf16, from shared memory.
    WarpgroupMultiply {
        columns: usize,
        bf16: bool,
    },
    WarpgroupCommit,
    /// Until at most so many groups of products are on their way.
    WarpgroupWait(usize),
    /// Lets tensor cores see what threads wrote to shared memory.
    ShowWrites,
    Branch {
        to: usize,
    },
    Exit,
    Trap,
}
