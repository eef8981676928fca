{{ config(materialized='source_table', options={'clock': 'event'},
          post_hook="insert into {{ this }} select user_id, price, event_time from {{ ref('clicks_seed') }} where not exists (select 1 from {{ this }}) order by event_time") }}
user_id BIGINT NOT NULL,
price DOUBLE PRECISION,
event_time TIMESTAMPTZ NOT NULL,
WATERMARK FOR event_time AS event_time - INTERVAL '30 seconds'
