{#
  A source or a table. The model's body is what stands between the parentheses of CREATE SOURCE: columns, WATERMARK, PRIMARY KEY.

  Settings: kind ('source' or 'table'), include (what INCLUDE says, a list), options (WITH), format (all of the FORMAT … ENCODE … clause).
  It is made once. Rows would be lost with it, so another statement is an error, unless --full-refresh says that they may go.
#}
{% materialization source_table, adapter='postgres' %}
  {%- set target = this.incorporate(type='table') -%}
  {%- set kind = tidemark.setting('kind', 'source') -%}
  {%- set include = tidemark.setting('include', []) -%}
  {%- set rest -%}
    {%- for what in include %} include {{ what }}{% endfor %} {{ tidemark.with_options(tidemark.setting('options', {})) }}
    {%- if tidemark.setting('format') %} format {{ tidemark.setting('format') }}{% endif %}
  {%- endset -%}
  {%- set mark = tidemark.mark(kind ~ rest ~ sql) -%}

  {{ run_hooks(pre_hooks, inside_transaction=False) }}
  {{ run_hooks(pre_hooks, inside_transaction=True) }}

  {%- set existing = tidemark.definition_of(target, 'sources') -%}
  {% if existing is not none and should_full_refresh() %}
    {% do run_query('drop ' ~ kind ~ ' ' ~ target ~ ' cascade') %}
    {% do tidemark.forget_dropped(target) %}
    {%- set existing = none -%}
  {% endif %}
  {% if existing is none %}
    {% call statement('main') -%}
      create {{ kind }} {{ target }} ( /* {{ mark }} */
        {{ sql }}
      ) {{ rest }}
    {%- endcall %}
  {% elif mark in existing %}
    {# Begins the transaction that is committed below: nothing else may. #}
    {% call statement('begun') %}select 1{% endcall %}
    {% call noop_statement('main', 'UNCHANGED') %}{% endcall %}
  {% else %}
    {% do exceptions.raise_compiler_error(
      kind ~ ' ' ~ target ~ ' was made by another statement, and its rows would go with it: run it with --full-refresh if they may, or give the model another name'
    ) %}
  {% endif %}
  {% do tidemark.comments(kind, target) %}

  {{ run_hooks(post_hooks, inside_transaction=True) }}
  {{ adapter.commit() }}
  {{ run_hooks(post_hooks, inside_transaction=False) }}
  {{ return({'relations': [target]}) }}
{% endmaterialization %}
