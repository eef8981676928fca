//! Vectors in SQL: the type `vector(n)`, what is cast to it, and how far vectors are from one another, as pgvector has them.
//!
//! A cast to `vector` reads a text, or takes an array of numbers, and checks what it makes. DataFusion's casts would make a vector
//! of one number of a text, and check nothing; so a function stands in their place.

use crate::{PlanError, PlanResult, each_expression::each_expression, error::sqlstate, words::type_name};
use arrow::{
    array::{Array, ArrayRef, AsArray, Float32Builder, Float64Builder, Int32Builder, ListBuilder},
    compute::{CastOptions, cast, cast_with_options},
    datatypes::{Float32Type, Float64Type},
};
use arrow_schema::{DataType, Field};
use datafusion::{
    common::{
        DFSchema, ScalarValue,
        config::ConfigOptions,
        exec_err,
        tree_node::{Transformed, TreeNode},
    },
    error::Result,
    logical_expr::{
        self, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility,
        expr::{Cast, Placeholder, ScalarFunction, TryCast},
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr},
    },
    optimizer::AnalyzerRule,
    sql::sqlparser::ast::{self, BinaryOperator},
};
use std::sync::Arc;
use tidemark_catalog::{
    SqlType,
    vector::{self, DIMENSIONS_MAX, NoVector, dimensions},
};

/// `vector(n)`.
///
/// # Errors
/// 22023: there are no vectors of so many dimensions.
pub(crate) fn sql_type(dimensions: u32) -> PlanResult<SqlType> {
    let wrong = |message: String| Err(PlanError::new(sqlstate::INVALID_PARAMETER, message));
    match u16::try_from(dimensions) {
        Ok(0) => wrong("dimensions for type vector must be at least 1".to_string()),
        Ok(dimensions) if dimensions <= DIMENSIONS_MAX => Ok(SqlType::Vector(Some(dimensions))),
        _ => wrong(format!("dimensions for type vector cannot exceed {DIMENSIONS_MAX}")),
    }
}

/// The Arrow type of `vector` or `vector(n)`; `None`: it is another type.
pub(super) fn planned(sql_type: &ast::DataType) -> PlanResult<Option<DataType>> {
    let ast::DataType::Custom(name, modifiers) = sql_type else { return Ok(None) };
    let is_vector = name.0.last().and_then(|part| part.as_ident()).is_some_and(|ident| match ident.quote_style {
        None => ident.value.eq_ignore_ascii_case("vector"),
        Some(_) => ident.value == "vector",
    });
    if !is_vector {
        return Ok(None);
    }
    Ok(Some(match modifiers.as_slice() {
        [] => vector::arrow(None),
        [dimensions] => match dimensions.parse::<u32>() {
            Ok(dimensions) => self::sql_type(dimensions)?.arrow(),
            Err(_) => return Err(PlanError::new(sqlstate::INVALID_PARAMETER, "invalid type modifier")),
        },
        _ => return Err(PlanError::new(sqlstate::INVALID_PARAMETER, "invalid type modifier")),
    }))
}

impl From<NoVector> for PlanError {
    fn from(error: NoVector) -> PlanError {
        let plan = PlanError::new(error.sqlstate(), error.to_string());
        match error.hint() {
            Some(hint) => plan.hint(hint),
            None => plan,
        }
    }
}

/// The rule for ordinary queries; comes after type coercion.
#[derive(Debug)]
pub struct VectorCasts;

impl AnalyzerRule for VectorCasts {
    fn name(&self) -> &str {
        "vector_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        read_all(plan)
    }
}

/// A coerced plan whose casts to `vector` are read here.
pub fn read_all(plan: LogicalPlan) -> Result<LogicalPlan> {
    each_expression(plan, read_casts)
}

/// The same for one expression over `schema`. A second time it changes nothing.
pub fn read_casts(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        if let Expr::ScalarFunction(call) = &expr
            && let Some(call) = over_arrays(call, schema)
        {
            return Ok(Transformed::yes(call));
        }
        let (Expr::Cast(Cast { expr: inner, field }) | Expr::TryCast(TryCast { expr: inner, field })) = &expr else {
            return Ok(Transformed::no(expr));
        };
        let to = field.data_type();
        let (Some(wanted), Ok(from)) = (dimensions(to), inner.get_type(schema)) else {
            return Ok(Transformed::no(expr));
        };
        // A parameter is said to be what it is cast to, and comes as any vector.
        let is_told = matches!(inner.as_ref(), Expr::Placeholder(_));
        let is_so = dimensions(&from).is_some_and(|has| wanted.is_none() || wanted == has);
        if from == DataType::Null || (is_so && !is_told) {
            return Ok(Transformed::no(expr));
        }
        if !is_text(&from) && !is_numbers(&from) {
            let message = format!("cannot cast type {} to vector", type_name(&from));
            return Err(PlanError::new("42846", message).hint("cast a text, '[1,2,3]', or an array of numbers").into());
        }
        let function = ToVector { to: to.clone(), signature: Signature::any(1, Volatility::Immutable) };
        Ok(Transformed::yes(ScalarUDF::from(function).call(vec![inner.as_ref().clone()])))
    })
}

/// DataFusion's functions of arrays promise the type of the vector that they are given and make an array, which is another: so they
/// are given arrays.
fn over_arrays(call: &ScalarFunction, schema: &DFSchema) -> Option<Expr> {
    if !call.name().starts_with("array_") {
        return None;
    }
    let types = call.args.iter().map(|arg| arg.get_type(schema)).collect::<Result<Vec<_>>>().ok()?;
    // Arrays of vectors are such.
    let is_of_lists = |ty: &DataType| matches!(ty, DataType::List(item) if item.data_type().is_nested());
    if types.iter().any(is_of_lists) || !types.iter().any(vector::is_vector) {
        return None;
    }
    let array = DataType::List(Arc::new(Field::new_list_field(DataType::Float32, true)));
    let args = call.args.iter().zip(&types).map(|(arg, ty)| match vector::is_vector(ty) {
        true => logical_expr::cast(arg.clone(), array.clone()),
        false => arg.clone(),
    });
    Some(call.func.call(args.collect()))
}

fn is_text(ty: &DataType) -> bool {
    matches!(ty, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Arrays of numbers, vectors among them.
fn is_numbers(ty: &DataType) -> bool {
    let (DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)) = ty else {
        return false;
    };
    item.data_type().is_numeric() || *item.data_type() == DataType::Null
}

/// Texts, or arrays of numbers, as vectors of type `to`.
///
/// # Errors
/// One of them is none, or has another number of dimensions.
pub fn vectors(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let wanted = dimensions(to).flatten();
    if is_text(array.data_type()) {
        let DataType::List(item) = to else { return exec_err!("{to} is no vector") };
        let mut vectors = ListBuilder::new(Float32Builder::new()).with_field(item.clone());
        for text in cast(array, &DataType::Utf8)?.as_string::<i32>() {
            match text {
                None => vectors.append_null(),
                Some(text) => {
                    vectors.values().append_slice(&vector::parse(text, wanted).map_err(PlanError::from)?);
                    vectors.append(true);
                }
            }
        }
        return Ok(Arc::new(vectors.finish()));
    }
    let vectors = cast_with_options(array, to, &CastOptions { safe: false, ..Default::default() })?;
    let lists = vectors.as_list::<i32>();
    for numbers in lists.iter().flatten() {
        if numbers.null_count() > 0 {
            return Err(PlanError::from(NoVector::Null).into());
        }
        vector::check(wanted, numbers.as_primitive::<Float32Type>().values()).map_err(PlanError::from)?;
    }
    Ok(vectors)
}

/// The cast as a function, which is what a plan can have in its place.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ToVector {
    to: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for ToVector {
    fn name(&self) -> &str {
        "vector"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.to.clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        Ok(ColumnarValue::Array(vectors(&arrays[0], &self.to)?))
    }
}

/// What is computed of one vector, or of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Measure {
    L2,
    L1,
    InnerProduct,
    NegativeInnerProduct,
    Cosine,
    Norm,
    Dimensions,
}

impl Measure {
    const ALL: [Measure; 7] = [
        Measure::L2,
        Measure::L1,
        Measure::InnerProduct,
        Measure::NegativeInnerProduct,
        Measure::Cosine,
        Measure::Norm,
        Measure::Dimensions,
    ];

    /// pgvector's name.
    fn name(self) -> &'static str {
        match self {
            Measure::L2 => "l2_distance",
            Measure::L1 => "l1_distance",
            Measure::InnerProduct => "inner_product",
            Measure::NegativeInnerProduct => "vector_negative_inner_product",
            Measure::Cosine => "cosine_distance",
            Measure::Norm => "vector_norm",
            Measure::Dimensions => "vector_dims",
        }
    }

    /// How many vectors it takes.
    fn takes(self) -> usize {
        if matches!(self, Measure::Norm | Measure::Dimensions) { 1 } else { 2 }
    }

    /// What the operator stands for.
    fn of(op: &BinaryOperator) -> Option<Measure> {
        match op {
            BinaryOperator::LtDashGt => Some(Measure::L2),
            BinaryOperator::Spaceship => Some(Measure::Cosine),
            BinaryOperator::Custom(op) if op == "<#>" => Some(Measure::NegativeInnerProduct),
            _ => None,
        }
    }

    fn function(self) -> ScalarUDF {
        ScalarUDF::from(Measured { measure: self, signature: Signature::user_defined(Volatility::Immutable) })
    }

    /// Of two vectors of the same length; in doubles, so that no order of addition shows in the digits of a `real`.
    fn compute(self, a: &[f64], b: &[f64]) -> f64 {
        let sum = |each: fn(f64, f64) -> f64| a.iter().zip(b).map(|(a, b)| each(*a, *b)).sum::<f64>();
        let square = |of: &[f64]| of.iter().map(|x| x * x).sum::<f64>();
        match self {
            Measure::L2 => sum(|a, b| (a - b) * (a - b)).sqrt(),
            Measure::L1 => sum(|a, b| (a - b).abs()),
            Measure::InnerProduct => sum(|a, b| a * b),
            Measure::NegativeInnerProduct => -sum(|a, b| a * b),
            // Not a number where one of them has no direction.
            Measure::Cosine => 1.0 - (sum(|a, b| a * b) / (square(a) * square(b)).sqrt()).clamp(-1.0, 1.0),
            Measure::Norm => square(a).sqrt(),
            Measure::Dimensions => a.len() as f64,
        }
    }
}

/// The functions, for those who call them by name.
pub(super) fn functions() -> impl Iterator<Item = ScalarUDF> {
    Measure::ALL.into_iter().map(Measure::function)
}

/// Reads `<->`, `<#>` and `<=>` between vectors, or arrays of numbers, as calls of the functions.
#[derive(Debug)]
pub struct VectorOperators;

impl ExprPlanner for VectorOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let Some(measure) = Measure::of(&expr.op) else { return Ok(PlannerResult::Original(expr)) };
        let is_one = |expr: &Expr| expr.get_type(schema).is_ok_and(|ty| is_numbers(&ty));
        if !is_one(&expr.left) && !is_one(&expr.right) {
            return Ok(PlannerResult::Original(expr));
        }
        let arguments = Vec::from([expr.left, expr.right].map(operand));
        Ok(PlannerResult::Planned(measure.function().call(arguments)))
    }
}

/// A parameter, or a text that is written there, is a vector beside one.
fn operand(expr: Expr) -> Expr {
    match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let field = Some(Arc::new(Field::new("", vector::arrow(None), true)));
            Expr::Placeholder(Placeholder { id, field })
        }
        Expr::Literal(ScalarValue::Utf8(_), _) => logical_expr::cast(expr, vector::arrow(None)),
        expr => expr,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Measured {
    measure: Measure,
    signature: Signature,
}

impl ScalarUDFImpl for Measured {
    fn name(&self) -> &str {
        self.measure.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let taken = |ty: &DataType| match ty {
            ty if is_numbers(ty) => Some(ty.clone()),
            ty if is_text(ty) || *ty == DataType::Null => Some(vector::arrow(None)),
            _ => None,
        };
        let all = types.iter().map(taken).collect::<Option<Vec<_>>>();
        all.filter(|all| all.len() == self.measure.takes()).ok_or_else(|| {
            let types = types.iter().map(type_name).collect::<Vec<_>>().join(", ");
            PlanError::new(sqlstate::UNDEFINED_FUNCTION, format!("function {}({types}) does not exist", self.name()))
                .hint("it takes vectors, or arrays of numbers")
                .into()
        })
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(if self.measure == Measure::Dimensions { DataType::Int32 } else { DataType::Float64 })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let doubles = DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)));
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let arrays = arrays.iter().map(|array| Ok(cast(array, &doubles)?)).collect::<Result<Vec<_>>>()?;
        let Some(first) = arrays.first() else { return exec_err!("{} takes vectors", self.name()) };
        let second = arrays.last().unwrap_or(first);
        let (first, second) = (first.as_list::<i32>(), second.as_list::<i32>());
        let mut found = Float64Builder::with_capacity(first.len());
        for (a, b) in first.iter().zip(second.iter()) {
            let (Some(a), Some(b)) = (a, b) else {
                found.append_null();
                continue;
            };
            if a.len() != b.len() {
                let message = format!("different vector dimensions {} and {}", a.len(), b.len());
                return Err(PlanError::new("22000", message).into());
            }
            // Of an array with a NULL in it nothing is known.
            if a.null_count() + b.null_count() > 0 {
                found.append_null();
                continue;
            }
            let (a, b) = (a.as_primitive::<Float64Type>().values(), b.as_primitive::<Float64Type>().values());
            found.append_value(self.measure.compute(a, b));
        }
        let found = found.finish();
        if self.measure != Measure::Dimensions {
            return Ok(ColumnarValue::Array(Arc::new(found)));
        }
        let mut counts = Int32Builder::with_capacity(found.len());
        found.iter().for_each(|count| counts.append_option(count.map(|count| count as i32)));
        Ok(ColumnarValue::Array(Arc::new(counts.finish())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;

    async fn answer(sql: &str) -> std::result::Result<String, String> {
        let context = SessionContext::new_with_state(crate::functions::planning_state("UTC"));
        let rows = match context.sql(sql).await {
            Ok(frame) => frame.collect().await,
            Err(error) => Err(error),
        };
        let rows = rows.map_err(|error| PlanError::from(error).message)?;
        arrow::util::display::array_value_to_string(rows[0].column(0), 0).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn vectors_are_read_checked_and_measured() {
        for (expression, expected) in [
            ("'[1,2.5]'::vector", Ok("[1.0, 2.5]")),
            ("'[1,2.5]'::vector(2)", Ok("[1.0, 2.5]")),
            ("ARRAY[1, 2]::vector(2)", Ok("[1.0, 2.0]")),
            ("'[1,2]'::vector::vector(2)::real[]", Ok("[1.0, 2.0]")),
            ("NULL::vector(2)", Ok("")),
            ("'[1,2]'::vector(3)", Err("expected 3 dimensions, not 2")),
            ("'[1,2]'::vector(2)::vector(3)", Err("expected 3 dimensions, not 2")),
            ("ARRAY[1, 2]::vector(3)", Err("expected 3 dimensions, not 2")),
            ("ARRAY[1, NULL]::vector", Err("array must not contain nulls")),
            ("1::vector", Err("cannot cast type bigint to vector")),
            ("'[1]'::vector(0)", Err("dimensions for type vector must be at least 1")),
            ("'[1]'::vector(16001)", Err("dimensions for type vector cannot exceed 16000")),
            ("'[1,2]'::vector <-> '[4,6]'", Ok("5.0")),
            ("'[1,2]' <-> ARRAY[4, 6]", Ok("5.0")),
            ("'[1,2]'::vector <#> '[3,4]'::vector", Ok("-11.0")),
            ("'[1,0]'::vector <=> '[0,2]' < 0.5", Ok("false")),
            ("'[1,1]'::vector <=> '[-1,-1]'", Ok("2.0")),
            ("'[0,0]'::vector <=> '[1,1]'", Ok("NaN")),
            ("l1_distance('[1,2]', '[4,6]')", Ok("7.0")),
            ("inner_product(ARRAY[1.5, 2], '[2,1]')", Ok("5.0")),
            ("vector_dims('[1,2,3]')", Ok("3")),
            ("vector_norm('[3,4]')", Ok("5.0")),
            ("l2_distance(NULL, '[1]')", Ok("")),
            ("l2_distance('[1,2]', '[1]')", Err("different vector dimensions 2 and 1")),
            ("1 <=> 1", Ok("true")),
            ("array_append('[1,2]'::vector(2), 3)", Ok("[1.0, 2.0, 3.0]")),
            ("array_slice('[1,2,3]'::vector, 1, 2)", Ok("[1.0, 2.0]")),
        ] {
            let found = answer(&format!("SELECT {expression} AS x")).await;
            assert_eq!(found, expected.map(str::to_string).map_err(str::to_string), "{expression}");
        }
    }
}
