// pgjdbc and HikariCP against a Tidemark server: java -cp '.jars/*' Clients.java PORT

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.*;
import java.time.*;
import java.util.*;
import org.postgresql.PGConnection;
import org.postgresql.PGStatement;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PGInterval;

public class Clients {
  static final OffsetDateTime AT = OffsetDateTime.of(2026, 3, 2, 10, 0, 0, 123456000, ZoneOffset.UTC);

  interface Work {
    void run() throws Exception;
  }

  static void expect(Object found, Object expected) {
    if (!Objects.deepEquals(found, expected)) {
      throw new AssertionError("found " + shown(found) + ", expected " + shown(expected));
    }
  }

  static String shown(Object value) {
    return value instanceof Object[] array ? Arrays.deepToString(array) : String.valueOf(value);
  }

  static SQLException refused(String state, Work work) throws Exception {
    try {
      work.run();
    } catch (SQLException error) {
      expect(error.getSQLState(), state);
      return error;
    }
    throw new AssertionError("nothing was refused, expected " + state);
  }

  /** All rows, each value as the driver gives it. */
  static List<List<Object>> rows(ResultSet results) throws SQLException {
    List<List<Object>> all = new ArrayList<>();
    while (results.next()) {
      List<Object> row = new ArrayList<>();
      for (int n = 1; n <= results.getMetaData().getColumnCount(); n++) row.add(results.getObject(n));
      all.add(row);
    }
    results.close();
    return all;
  }

  /** These columns of what a DatabaseMetaData lists. */
  static List<String> listed(ResultSet results, String... columns) throws SQLException {
    List<String> all = new ArrayList<>();
    while (results.next()) {
      List<String> row = new ArrayList<>();
      for (String column : columns) row.add(results.getString(column));
      all.add(String.join(" ", row.stream().map(String::valueOf).toList()));
    }
    results.close();
    return all;
  }

  public static void main(String[] arguments) throws Exception {
    String url = "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/tidemark?user=tidemark";
    try (Connection c = DriverManager.getConnection(url)) {
      values(c, 1);
      copies(c);
      lookups(c);
      metadata(c);
      blocks(c);
    }
    // Binary from the first time on, rewritten batches; then all by the simple protocol
    try (Connection c = DriverManager.getConnection(url + "&prepareThreshold=-1&binaryTransfer=true&reWriteBatchedInserts=true")) {
      values(c, 2);
      lookups(c);
      batch(c, 1000);
    }
    try (Connection c = DriverManager.getConnection(url + "&preferQueryMode=simple")) {
      values(c, 3);
      lookups(c);
    }
    pool(url);
    System.out.println("ok");
  }

  static void values(Connection c, long id) throws Exception {
    String marks = String.join(", ", Collections.nCopies(17, "?"));
    try (PreparedStatement insert = c.prepareStatement("INSERT INTO everything VALUES (" + marks + ")")) {
      Object[] values = {
        id, true, (short) -7, 70000, 1.5f, 0.1, new BigDecimal("12345.678"), "grüße 🦀\t\\", new byte[] {0, -1},
        LocalDate.of(2026, 2, 28), LocalTime.of(1, 2, 3, 4000), AT.toLocalDateTime(), AT,
        new PGInterval(0, 0, 3, 0, 0, 7), c.createArrayOf("bigint", new Long[] {1L, null, 1L << 62}),
        c.createArrayOf("text", new String[] {"a,b", null, ""}), c.createArrayOf("real", new Float[] {0.5f, -2f}),
      };
      for (int n = 0; n < values.length; n++) insert.setObject(n + 1, values[n]);
      expect(insert.executeUpdate(), 1);
    }
    try (PreparedStatement select = c.prepareStatement("SELECT * FROM everything WHERE id = ?")) {
      // The driver prepares on the server from the fifth time on, and then reads binary
      for (int time = 0; time < 8; time++) {
        select.setLong(1, id);
        try (ResultSet row = select.executeQuery()) {
          expect(row.next(), true);
          expect(row.getLong(1), id);
          expect(row.getBoolean("flag"), true);
          expect(row.getShort("small"), (short) -7);
          expect(row.getInt("whole"), 70000);
          expect(row.getFloat("single"), 1.5f);
          expect(row.getDouble("twice"), 0.1);
          expect(row.getBigDecimal("money"), new BigDecimal("12345.678"));
          expect(row.getString("word"), "grüße 🦀\t\\");
          expect(row.getBytes("raw"), new byte[] {0, -1});
          expect(row.getObject("day", LocalDate.class), LocalDate.of(2026, 2, 28));
          expect(row.getObject("clock", LocalTime.class), LocalTime.of(1, 2, 3, 4000));
          expect(row.getObject("naive", LocalDateTime.class), AT.toLocalDateTime());
          expect(row.getObject("at", OffsetDateTime.class).toInstant(), AT.toInstant());
          expect(row.getTimestamp("at").toInstant(), AT.toInstant());
          expect(((PGInterval) row.getObject("gap")).getDays(), 3);
          expect(row.getArray("longs").getArray(), new Long[] {1L, null, 1L << 62});
          expect(row.getArray("words").getArray(), new String[] {"a,b", null, ""});
          expect(row.getArray("vector").getArray(), new Float[] {0.5f, -2f});
        }
      }
      expect(((PGStatement) select).isUseServerPrepare(), true);
    }
    try (PreparedStatement insert = c.prepareStatement("INSERT INTO everything (id, flag, at) VALUES (?, ?, ?) RETURNING id, word")) {
      insert.setLong(1, -id);
      insert.setNull(2, Types.BOOLEAN);
      insert.setNull(3, Types.TIMESTAMP_WITH_TIMEZONE);
      expect(rows(insert.executeQuery()), List.of(Arrays.asList(-id, null)));
    }
  }

  static void copies(Connection c) throws Exception {
    CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
    String events = "7,9.50,a,2026-03-02 10:00:00+00\n8,,b,2026-03-02 10:00:00+00\n7,0.50,,2026-03-02 10:00:01+00\n";
    expect(copy.copyIn("COPY clicks FROM STDIN CSV", new StringReader(events)), 3L);
    StringWriter out = new StringWriter();
    expect(copy.copyOut("COPY (SELECT user_id, price FROM clicks ORDER BY at, user_id) TO STDOUT CSV", out), 3L);
    expect(out.toString(), "7,9.50\n8,\n7,0.50\n");
    refused("22P04", () -> copy.copyIn("COPY clicks FROM STDIN CSV", new StringReader("1,2\n")));
    batch(c, 0);
    try (Statement statement = c.createStatement()) {
      c.setAutoCommit(false);
      statement.setFetchSize(100);
      ResultSet results = statement.executeQuery("SELECT user_id FROM labels ORDER BY user_id");
      for (long n = 0; n < 500; n++) {
        expect(results.next(), true);
        expect(results.getLong(1), n);
      }
      expect(results.next(), false);
      c.commit();
      c.setAutoCommit(true);
    }
  }

  static void batch(Connection c, long first) throws Exception {
    try (PreparedStatement insert = c.prepareStatement("INSERT INTO labels (user_id, at, bought) VALUES (?, ?, ?)")) {
      for (int n = 0; n < 500; n++) {
        insert.setLong(1, first + n);
        insert.setTimestamp(2, Timestamp.from(AT.toInstant()));
        insert.setBoolean(3, n % 2 == 0);
        insert.addBatch();
      }
      expect(insert.executeBatch().length, 500);
    }
    try (Statement count = c.createStatement()) {
      ResultSet counted = count.executeQuery("SELECT count(*), count(*) FILTER (WHERE bought) FROM labels WHERE user_id >= " + first);
      expect(rows(counted), List.of(List.of(500L, 250L)));
    }
  }

  static void lookups(Connection c) throws Exception {
    try (PreparedStatement one = c.prepareStatement("SELECT user_id, clicks, total, last_page FROM spend WHERE user_id = ?");
        PreparedStatement any = c.prepareStatement("SELECT user_id FROM spend WHERE user_id = ANY (?) ORDER BY user_id");
        PreparedStatement pair = c.prepareStatement("SELECT views FROM pages WHERE page = ? AND user_id = ?")) {
      for (int time = 0; time < 7; time++) {
        one.setLong(1, 7);
        expect(rows(one.executeQuery()), List.of(Arrays.asList(7L, 2L, new BigDecimal("10.00"), null)));
        one.setLong(1, 9);
        expect(rows(one.executeQuery()), List.of());
        any.setArray(1, c.createArrayOf("bigint", new Long[] {8L, 7L, 9L}));
        expect(rows(any.executeQuery()), List.of(List.of(7L), List.of(8L)));
        pair.setString(1, "a");
        pair.setLong(2, 7);
        expect(rows(pair.executeQuery()), List.of(List.of(1L)));
      }
    }
    // By the simple protocol nothing is described, at PostgreSQL neither
    if (c.unwrap(PGConnection.class).getPreferQueryMode().value().equals("simple")) return;
    try (PreparedStatement described = c.prepareStatement("SELECT total, at FROM spend WHERE user_id = ?")) {
      ResultSetMetaData columns = described.getMetaData();
      expect(List.of(columns.getColumnTypeName(1), columns.getPrecision(1), columns.getScale(1), columns.getColumnTypeName(2)),
          List.of("numeric", 38, 2, "timestamptz"));
      expect(described.getParameterMetaData().getParameterTypeName(1), "int8");
    }
  }

  static void metadata(Connection c) throws Exception {
    DatabaseMetaData meta = c.getMetaData();
    expect(meta.getDatabaseProductName(), "PostgreSQL");
    expect(meta.getDatabaseMajorVersion(), 15);
    expect(listed(meta.getCatalogs(), "TABLE_CAT"), List.of("tidemark"));
    expect(listed(meta.getSchemas(), "TABLE_SCHEM").containsAll(List.of("history", "public", "tidemark")), true);
    expect(listed(meta.getTables(null, "public", "%", new String[] {"TABLE", "VIEW", "MATERIALIZED VIEW"}), "TABLE_NAME", "TABLE_TYPE", "REMARKS"), List.of(
        "clicks TABLE null", "everything TABLE null", "labels TABLE null",
        "pages VIEW null", "spend VIEW what a user spent", "totals VIEW null"));
    expect(listed(meta.getTables(null, "public", "%", new String[] {"VIEW"}), "TABLE_NAME"), List.of("pages", "spend", "totals"));
    expect(listed(meta.getColumns(null, "public", "spend", "%"), "COLUMN_NAME", "TYPE_NAME", "COLUMN_SIZE", "DECIMAL_DIGITS", "REMARKS"),
        List.of("user_id int8 19 0 null", "at timestamptz 35 6 null", "clicks int8 19 0 null", "total numeric 38 2 the sum of prices",
            "last_page text 2147483647 0 null"));
    expect(listed(meta.getColumns(null, "public", "everything", "%s"), "COLUMN_NAME", "DATA_TYPE"),
        List.of("longs " + Types.ARRAY, "words " + Types.ARRAY));
    expect(listed(meta.getColumns(null, "public", "everything", "id"), "IS_NULLABLE"), List.of("NO"));
    expect(listed(meta.getPrimaryKeys(null, "public", "everything"), "COLUMN_NAME", "KEY_SEQ"), List.of("id 1"));
    expect(listed(meta.getPrimaryKeys(null, "public", "pages"), "COLUMN_NAME", "KEY_SEQ"), List.of("page 1", "user_id 2"));
    expect(listed(meta.getIndexInfo(null, "public", "everything", true, false), "INDEX_NAME", "COLUMN_NAME"), List.of("everything_pkey id"));
    expect(listed(meta.getBestRowIdentifier(null, "public", "everything", 0, true), "COLUMN_NAME"), List.of("id"));
    for (ResultSet nothing : List.of(meta.getImportedKeys(null, "public", "everything"), meta.getExportedKeys(null, "public", "everything"),
        meta.getCrossReference(null, "public", "everything", null, "public", "labels"), meta.getUDTs(null, "public", "%", null))) {
      expect(rows(nothing), List.of());
    }
    expect(listed(meta.getTypeInfo(), "TYPE_NAME").containsAll(List.of("int8", "timestamptz", "numeric", "text", "interval")), true);
    for (Work lists : new Work[] {
      () -> rows(meta.getTableTypes()), () -> rows(meta.getProcedures(null, "public", "%")), () -> rows(meta.getFunctions(null, "public", "%")),
      () -> rows(meta.getFunctionColumns(null, "public", "%", "%")), () -> rows(meta.getTablePrivileges(null, "public", "%")),
      () -> rows(meta.getColumnPrivileges(null, "public", "spend", "%")), () -> rows(meta.getVersionColumns(null, "public", "spend")),
      () -> rows(meta.getClientInfoProperties()), () -> meta.getSQLKeywords(), () -> meta.getMaxColumnNameLength(),
    }) {
      lists.run();
    }
  }

  static void blocks(Connection c) throws Exception {
    try (Statement statement = c.createStatement()) {
      refused("42P01", () -> statement.executeQuery("SELECT * FROM nothing"));
      refused("42601", () -> statement.execute("SELEC 1"));
      SQLException twice = refused("23505", () -> statement.execute("INSERT INTO everything (id) VALUES (1)"));
      expect(twice.getMessage().contains("everything_pkey"), true);
      c.setAutoCommit(false);
      Savepoint before = c.setSavepoint("before");
      refused("22012", () -> statement.execute("SELECT 1/0"));
      refused("25P02", () -> statement.execute("SELECT 1"));
      c.rollback(before);
      expect(rows(statement.executeQuery("SELECT 1::int")), List.of(List.of(1)));
      c.releaseSavepoint(before);
      c.commit();
      for (int level : List.of(Connection.TRANSACTION_SERIALIZABLE, Connection.TRANSACTION_REPEATABLE_READ, Connection.TRANSACTION_READ_COMMITTED)) {
        c.setTransactionIsolation(level);
        expect(c.getTransactionIsolation(), level);
        c.commit();
      }
      c.setReadOnly(true);
      refused("25006", () -> statement.execute("INSERT INTO labels VALUES (1, NULL, NULL)"));
      c.rollback();
      c.setReadOnly(false);
      c.setAutoCommit(true);
      statement.setQueryTimeout(1);
      refused("57014", () -> statement.execute("SELECT pg_sleep(60)"));
      statement.setQueryTimeout(0);
      expect(statement.execute("SELECT 1::int; SELECT 2::int"), true);
      expect(statement.getMoreResults(), true);
      expect(rows(statement.getResultSet()), List.of(List.of(2)));
      statement.execute("LISTEN news");
      statement.execute("NOTIFY news, 'hello'");
      expect(c.unwrap(PGConnection.class).getNotifications(5000)[0].getParameter(), "hello");
      statement.execute("DROP TABLE IF EXISTS nothing");
      expect(statement.getWarnings().getSQLState(), "00000");
    }
    try (PreparedStatement insert = c.prepareStatement("INSERT INTO everything (id) VALUES (?)", Statement.RETURN_GENERATED_KEYS)) {
      insert.setLong(1, 1000);
      insert.executeUpdate();
      ResultSet keys = insert.getGeneratedKeys();
      expect(keys.next(), true);
      expect(keys.getLong("id"), 1000L);
    }
    c.setSchema("public");
    expect(c.getSchema(), "public");
    expect(c.isValid(2), true);
  }

  static void pool(String url) throws Exception {
    HikariConfig config = new HikariConfig();
    config.setJdbcUrl(url);
    config.setMaximumPoolSize(3);
    config.setSchema("public");
    config.setAutoCommit(false);
    config.setTransactionIsolation("TRANSACTION_REPEATABLE_READ");
    config.setReadOnly(true);
    config.setConnectionInitSql("SET application_name = 'pool'");
    try (HikariDataSource pool = new HikariDataSource(config)) {
      for (int n = 0; n < 9; n++) {
        try (Connection c = pool.getConnection(); PreparedStatement lookup = c.prepareStatement("SELECT clicks FROM spend WHERE user_id = ?")) {
          expect(c.isValid(1), true);
          lookup.setLong(1, 7 + n % 2);
          expect(rows(lookup.executeQuery()), List.of(List.of(2L - n % 2)));
          refused("25006", () -> c.createStatement().execute("INSERT INTO labels VALUES (1, NULL, NULL)"));
          c.setReadOnly(n % 2 == 0);
        } catch (SQLException error) {
          // Of `setReadOnly` in a block that has failed: the driver's own rule
          expect(error.getSQLState(), "25001");
        }
      }
    }
  }
}
