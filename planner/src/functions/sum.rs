//! `sum` over integers and decimals: exact inside, error 22003 where the result leaves its type. DataFusion's own wraps
//! around; for doubles it is as good as any, and stays.
//!
//! A sum is kept in a type so wide that no number of rows fills it: `bigint` in 128 bits, `numeric` in 256. So what the
//! rows pass through on the way does not matter, only where they end, in any order and any number of partitions. That is
//! also the type of the partial sums that partitions hand on:
//!
//! ```text
//! bigint        i64  ──> Decimal128(38, 0)   2⁶³ rows of 2⁶³ are 2¹²⁶, and 10³⁸ is more
//! numeric(p,s)  i128 ──> Decimal256(76, s)   2⁶³ rows of 10³⁸ are 10⁵⁷
//! ```

use crate::{PlanError, error::sqlstate};
use arrow::{
    array::{ArrayRef, ArrowNativeTypeOp, AsArray, BooleanArray, PrimitiveArray},
    datatypes::{
        ArrowPrimitiveType, DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type,
        Decimal256Type, Field, FieldRef, Int64Type, UInt64Type, i256,
    },
};
use datafusion::{
    common::{ScalarValue, cast::as_list_array},
    error::Result,
    functions_aggregate::sum::Sum,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
        Signature,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::{AggregateOrderSensitivity, format_state_name},
    },
    physical_expr::NullState,
};
use std::{
    collections::HashMap,
    fmt::{self, Debug},
    hash::Hash,
    sync::Arc,
};

pub fn sum() -> AggregateUDF {
    AggregateUDF::new_from_impl(ExactSum { plain: Sum::new() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactSum {
    /// What names, types and doubles are left to.
    plain: Sum,
}

/// The type a sum over this result type is kept in; `None`: DataFusion's business.
fn wide(ty: &DataType) -> Option<DataType> {
    match ty {
        DataType::Int64 | DataType::UInt64 => Some(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)),
        DataType::Decimal128(_, scale) => Some(DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale)),
        _ => None,
    }
}

/// `make!(T)` for the type `T` that is summed, else what follows.
macro_rules! by_type {
    ($ty:expr, $make:ident, $otherwise:expr) => {
        match $ty {
            DataType::Int64 => $make!(Int64Type),
            DataType::UInt64 => $make!(UInt64Type),
            DataType::Decimal128(..) => $make!(Decimal128Type),
            _ => $otherwise,
        }
    };
}

impl AggregateUDFImpl for ExactSum {
    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        self.plain.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [DataType::Decimal128(_, scale)] => Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale)),
            _ => self.plain.return_type(arg_types),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        match wide(args.return_type()) {
            Some(ty) if !args.is_distinct => {
                Ok(vec![Arc::new(Field::new(format_state_name(args.name, "sum"), ty, true))])
            }
            _ => self.plain.state_fields(args),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let ty = args.return_field.data_type().clone();
        macro_rules! make {
            ($t:ty) => {
                Ok(match args.is_distinct {
                    true => Box::new(DistinctTotal::<$t>::new(ty)) as Box<dyn Accumulator>,
                    false => Box::new(Total::<$t>::new(ty)),
                })
            };
        }
        by_type!(args.return_field.data_type(), make, self.plain.accumulator(args))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match wide(args.return_field.data_type()) {
            Some(_) => self.accumulator(args),
            None => self.plain.create_sliding_accumulator(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.plain.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let ty = args.return_field.data_type().clone();
        macro_rules! make {
            ($t:ty) => {
                Ok(Box::new(Totals::<$t>::new(ty)))
            };
        }
        by_type!(args.return_field.data_type(), make, self.plain.create_groups_accumulator(args))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.plain.reverse_expr()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.plain.order_sensitivity()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.plain.set_monotonicity(data_type)
    }
}

/// A type that is summed in a wider one.
trait Summed: ArrowPrimitiveType<Native: Hash + Eq> + Send {
    type Wide: ArrowPrimitiveType<Native: ArrowNativeTypeOp> + Send;

    fn widen(value: Self::Native) -> <Self::Wide as ArrowPrimitiveType>::Native;
    /// `None`: out of range.
    fn narrow(sum: <Self::Wide as ArrowPrimitiveType>::Native) -> Option<Self::Native>;
}

/// Whole numbers of 64 bits, in 128.
macro_rules! summed_in_128_bits {
    ($ty:ty) => {
        impl Summed for $ty {
            type Wide = Decimal128Type;

            fn widen(value: Self::Native) -> i128 {
                value.into()
            }

            fn narrow(sum: i128) -> Option<Self::Native> {
                sum.try_into().ok()
            }
        }
    };
}

summed_in_128_bits!(Int64Type);
summed_in_128_bits!(UInt64Type);

impl Summed for Decimal128Type {
    type Wide = Decimal256Type;

    fn widen(value: i128) -> i256 {
        i256::from_i128(value)
    }

    fn narrow(sum: i256) -> Option<i128> {
        let limit = 10i128.pow(DECIMAL128_MAX_PRECISION.into());
        sum.to_i128().filter(|sum| (1 - limit..limit).contains(sum))
    }
}

type WideOf<T> = <<T as Summed>::Wide as ArrowPrimitiveType>::Native;

fn narrowed<T: Summed>(sum: WideOf<T>, ty: &DataType) -> Result<T::Native> {
    T::narrow(sum).ok_or_else(|| {
        PlanError::new(sqlstate::OUT_OF_RANGE, format!("{} out of range", crate::words::type_name(ty)))
            .detail("a sum is exact inside, but its result does not fit its type")
            .hint("sum(x::numeric(38,0)) or sum(x::double precision) has more room")
            .into()
    })
}

/// One sum, which rows can also be taken out of.
struct Total<T: Summed> {
    sum: WideOf<T>,
    /// Rows that are not NULL: over none of them a sum is NULL.
    rows: u64,
    ty: DataType,
}

impl<T: Summed> Total<T> {
    fn new(ty: DataType) -> Self {
        Total { sum: WideOf::<T>::ZERO, rows: 0, ty }
    }

    fn add(&mut self, value: T::Native) {
        self.sum = self.sum.add_wrapping(T::widen(value));
        self.rows += 1;
    }

    fn take(&mut self, value: T::Native) {
        self.sum = self.sum.sub_wrapping(T::widen(value));
        self.rows -= 1;
    }
}

impl<T: Summed> Debug for Total<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sum in {}", self.ty)
    }
}

impl<T: Summed> Accumulator for Total<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        values[0].as_primitive::<T>().iter().flatten().for_each(|value| self.add(value));
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        values[0].as_primitive::<T>().iter().flatten().for_each(|value| self.take(value));
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for sum in states[0].as_primitive::<T::Wide>().iter().flatten() {
            self.sum = self.sum.add_wrapping(sum);
            self.rows += 1;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let sum = (self.rows > 0).then_some(self.sum);
        let ty = wide(&self.ty).unwrap_or_else(|| self.ty.clone());
        Ok(vec![ScalarValue::new_primitive::<T::Wide>(sum, &ty)?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = (self.rows > 0).then(|| narrowed::<T>(self.sum, &self.ty)).transpose()?;
        ScalarValue::new_primitive::<T>(sum, &self.ty)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// `sum(DISTINCT x)`: the values and how often each is there.
struct DistinctTotal<T: Summed> {
    values: HashMap<T::Native, u64>,
    total: Total<T>,
}

impl<T: Summed> DistinctTotal<T> {
    fn new(ty: DataType) -> Self {
        DistinctTotal { values: HashMap::new(), total: Total::new(ty) }
    }

    fn add(&mut self, array: &PrimitiveArray<T>) {
        for value in array.iter().flatten() {
            let times = self.values.entry(value).or_default();
            if *times == 0 {
                self.total.add(value);
            }
            *times += 1;
        }
    }
}

impl<T: Summed> Debug for DistinctTotal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "distinct {:?}", self.total)
    }
}

impl<T: Summed> Accumulator for DistinctTotal<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(values[0].as_primitive::<T>());
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<T>().iter().flatten() {
            if let Some(times) = self.values.get_mut(&value) {
                *times -= 1;
                if *times == 0 {
                    self.values.remove(&value);
                    self.total.take(value);
                }
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for list in as_list_array(&states[0])?.iter().flatten() {
            self.add(list.as_primitive::<T>());
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let ty = &self.total.ty;
        let values = self.values.keys().map(|value| ScalarValue::new_primitive::<T>(Some(*value), ty));
        let list = ScalarValue::new_list_nullable(&values.collect::<Result<Vec<_>>>()?, ty);
        Ok(vec![ScalarValue::List(list)])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.total.evaluate()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<(T::Native, u64)>()
    }
}

/// The sums of many groups at once.
struct Totals<T: Summed> {
    sums: Vec<WideOf<T>>,
    seen: NullState,
    ty: DataType,
}

impl<T: Summed> Totals<T> {
    fn new(ty: DataType) -> Self {
        Totals { sums: vec![], seen: NullState::new(), ty }
    }

    fn add<A: ArrowPrimitiveType + Send>(
        &mut self,
        values: &ArrayRef,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
        widen: impl Fn(A::Native) -> WideOf<T> + Send + Sync,
    ) {
        self.sums.resize(count, WideOf::<T>::ZERO);
        let sums = &mut self.sums;
        self.seen.accumulate(groups, values.as_primitive::<A>(), filter, count, |group, value| {
            sums[group] = sums[group].add_wrapping(widen(value));
        });
    }

    fn wide_array(&self, sums: PrimitiveArray<T::Wide>) -> ArrayRef {
        Arc::new(sums.with_data_type(wide(&self.ty).unwrap_or_else(|| self.ty.clone())))
    }
}

impl<T: Summed> GroupsAccumulator for Totals<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.add::<T>(&values[0], groups, filter, count, T::widen);
        Ok(())
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.add::<T::Wide>(&values[0], groups, filter, count, |sum| sum);
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let sums = emit.take_needed(&mut self.sums);
        let nulls = self.seen.build(emit);
        let sums = sums.into_iter().map(|sum| narrowed::<T>(sum, &self.ty)).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(PrimitiveArray::<T>::new(sums.into(), nulls).with_data_type(self.ty.clone())))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let sums = emit.take_needed(&mut self.sums);
        let nulls = self.seen.build(emit);
        Ok(vec![self.wide_array(PrimitiveArray::new(sums.into(), nulls))])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<T>();
        let wide = match filter {
            None => values.unary::<_, T::Wide>(T::widen),
            Some(filter) => {
                let taken = values.iter().zip(filter).map(|(value, taken)| value.filter(|_| taken == Some(true)));
                taken.map(|value| value.map(T::widen)).collect()
            }
        };
        Ok(vec![self.wide_array(wide)])
    }

    fn supports_convert_to_state(&self) -> bool {
        true
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<WideOf<T>>() + self.seen.size()
    }
}
