{# What a model says of itself: as a config of its own, or under `meta`, which is where dbt 2 wants it. #}
{% macro setting(name, default=none) -%}
  {%- set meta = config.get('meta') or {} -%}
  {%- set value = meta[name] if name in meta else config.get(name, default) -%}
  {{ return(value) }}
{%- endmacro %}

{# `WITH (…)` of the settings that are there; lists are written with commas. #}
{% macro with_options(options) -%}
  {%- set written = [] -%}
  {%- for name, value in options.items() if value is not none -%}
    {%- set text = value | join(',') if value is iterable and value is not string else value | string -%}
    {%- do written.append(name ~ " = '" ~ text | replace("'", "''") ~ "'") -%}
  {%- endfor -%}
  {%- if written -%} with ({{ written | join(', ') }}) {%- endif -%}
{%- endmacro %}

{# A mark inside the statement that the server keeps as written: what made the object. Another mark: another definition. #}
{% macro mark(text) -%}
  {{ return('dbt ' ~ local_md5(text)) }}
{%- endmacro %}

{# The statement that made an object, or none. `catalog` is one of tidemark's tables, `column` where it has the statement. #}
{% macro definition_of(relation, catalog, column='definition') -%}
  {%- set found = run_query(
    "select " ~ column ~ " from tidemark." ~ catalog ~ " where name = '" ~ relation.identifier ~ "' and schema = '" ~ relation.schema ~ "'"
  ) -%}
  {{ return(found.columns[0].values()[0] if found is not none and found.rows | length > 0 else none) }}
{%- endmacro %}

{# dbt remembers what there is, and not what a CASCADE took with it. #}
{% macro forget_dropped(relation) -%}
  {%- set there = run_query(
    "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = '" ~ relation.schema ~ "'"
  ).columns[0].values() -%}
  {%- for node in graph.nodes.values() if node.schema == relation.schema and node.alias and node.alias not in there -%}
    {%- set known = adapter.get_relation(node.database, node.schema, node.alias) -%}
    {%- if known is not none -%} {%- do adapter.cache_dropped(known) -%} {%- endif -%}
  {%- endfor -%}
{%- endmacro %}

{# dbt's descriptions as comments, where persist_docs asks for them. #}
{% macro comments(kind, relation) -%}
  {%- if config.persist_relation_docs() and model.description -%}
    {%- call statement('relation_comment') -%}
      comment on {{ kind }} {{ relation }} is {{ tidemark.quoted(model.description) }}
    {%- endcall -%}
  {%- endif -%}
  {%- if config.persist_column_docs() and model.columns -%}
    {%- for name, column in model.columns.items() if column.description -%}
      {%- call statement('column_comment') -%}
        comment on column {{ relation }}.{{ adapter.quote(name) if column.quote else name }} is {{ tidemark.quoted(column.description) }}
      {%- endcall -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro %}

{% macro quoted(text) -%}
  '{{ text | replace("'", "''") }}'
{%- endmacro %}
