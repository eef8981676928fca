import java.lang.management.ManagementFactory;
import java.nio.file.*;
import org.apache.flink.table.api.*;

/**
 * Runs a file of SQL statements (each ends with ';' at the end of its line) in one JVM, streaming mode, a local cluster per INSERT,
 * and prints wall and CPU seconds and the greatest live heap of every INSERT. A first INSERT warms the JVM up for the next.
 * The heap is only looked at, by collecting it twice a second, when a second argument says so: it costs time.
 */
public class FlinkSql {
  static volatile long live;

  static long used() {
    return ManagementFactory.getMemoryMXBean().getHeapMemoryUsage().getUsed();
  }

  static double cpuSeconds() {
    return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime() / 1e9;
  }

  public static void main(String[] arguments) throws Exception {
    if (arguments.length > 1) {
      Thread sampler = new Thread(() -> {
        while (true) {
          System.gc();
          live = Math.max(live, used());
          try { Thread.sleep(500); } catch (InterruptedException e) { return; }
        }
      });
      sampler.setDaemon(true);
      sampler.start();
    }
    TableEnvironment environment = TableEnvironment.create(EnvironmentSettings.inStreamingMode());
    for (String statement : Files.readString(Path.of(arguments[0])).split(";\\s*\n")) {
      statement = statement.strip();
      if (statement.isEmpty()) continue;
      if (statement.startsWith("SET ")) {
        String[] pair = statement.substring(4).split("=", 2);
        environment.getConfig().set(pair[0].strip(), pair[1].strip());
        continue;
      }
      if (!statement.startsWith("INSERT")) { environment.executeSql(statement); continue; }
      System.gc();
      live = 0;
      long heap = used();
      double cpu = cpuSeconds();
      long begun = System.nanoTime();
      environment.executeSql(statement).await();
      System.out.printf(java.util.Locale.ROOT, "DONE %.3f %.3f %d%n", (System.nanoTime() - begun) / 1e9, cpuSeconds() - cpu, Math.max(live - heap, 0));
    }
  }
}
