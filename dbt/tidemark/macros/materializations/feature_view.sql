{#
  A feature view: the model's SELECT, kept current by the server.

  Settings: ttl, slide, key, online, owner, tags, as in CREATE FEATURE VIEW … WITH.
  A run leaves a view alone whose statement is the one that made it. Another statement: the new view is made beside the old one, fed from
  the source's log, and takes its name; the old one goes with its history, and what reads it goes too (as dbt drops tables: CASCADE).
#}
{% materialization feature_view, adapter='postgres' %}
  {%- set target = this.incorporate(type='view') -%}
  {%- set made = target.incorporate(path={'identifier': target.identifier ~ '__dbt_tmp'}) -%}
  {%- set options = tidemark.with_options({
      'ttl': tidemark.setting('ttl'), 'slide': tidemark.setting('slide'), 'key': tidemark.setting('key'),
      'online': tidemark.setting('online'), 'owner': tidemark.setting('owner'), 'tags': tidemark.setting('feature_tags')}) -%}
  {%- set mark = tidemark.mark(options ~ sql) -%}

  {{ run_hooks(pre_hooks, inside_transaction=False) }}
  {{ run_hooks(pre_hooks, inside_transaction=True) }}

  {%- set existing = tidemark.definition_of(target, 'feature_views') -%}
  {% if existing is not none and mark in existing and not should_full_refresh() %}
    {# Begins the transaction that is committed below: nothing else may. #}
    {% call statement('begun') %}select 1{% endcall %}
    {% call noop_statement('main', 'UNCHANGED') %}{% endcall %}
  {% else %}
    {% do run_query('drop feature view if exists ' ~ made ~ ' cascade') %}
    {% call statement('main') -%}
      create feature view {{ made if existing is not none else target }} {{ options }} as
      /* {{ mark }} */
      {{ sql }}
    {%- endcall %}
    {% if existing is not none %}
      {% do run_query('drop feature view ' ~ target ~ ' cascade') %}
      {% do run_query('alter feature view ' ~ made ~ ' rename to ' ~ adapter.quote(target.identifier)) %}
      {% do tidemark.forget_dropped(target) %}
    {% endif %}
  {% endif %}
  {% do tidemark.comments('feature view', target) %}

  {{ run_hooks(post_hooks, inside_transaction=True) }}
  {{ adapter.commit() }}
  {{ run_hooks(post_hooks, inside_transaction=False) }}
  {{ return({'relations': [target]}) }}
{% endmaterialization %}
