package org.imixs.streams.peer;

import java.io.Serializable;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Set;
import java.util.function.Function;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.java.utils.ParameterTool;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceBuilder;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.runtime.state.hashmap.HashMapStateBackend;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/**
 * What users of Flink write for the job of {@code run.py transitions}: JSON events of a topic become
 * transitions and cases, in event-time order and each event once, on two topics.
 *
 * <p>It does less than ours: there are no dead letters and no rows of late or retracted events,
 * which are only counted, and formats are not found.
 */
public final class TransitionsJob {
    private TransitionsJob() {}

    /**
     * Wires the job and submits it.
     *
     * @param args {@code --broker HOST:PORT --topic NAME --prefix OUT-}, and if not the defaults:
     *     {@code --group NAME --disorder MS --checkpoint MS --parallelism N --end-states A,B --name
     *     JOB}; {@code --until-end true} ends it at the topic's present end
     */
    public static void main(String[] args) throws Exception {
        ParameterTool given = ParameterTool.fromArgs(args);
        String broker = given.getRequired("broker");
        String prefix = given.getRequired("prefix");

        StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment();
        env.setParallelism(given.getInt("parallelism", 1));
        env.enableCheckpointing(given.getLong("checkpoint", 10_000));
        env.setStateBackend(new HashMapStateBackend());
        // No operator changes what it was given, and nothing may fall back to Kryo.
        env.getConfig().enableObjectReuse();
        env.getConfig().disableGenericTypes();

        SingleOutputStreamOperator<Transition> transitions =
                env.fromSource(source(given), watermarks(given), "Read events")
                        .uid("read-events")
                        .keyBy(event -> event.caseId)
                        .process(new CaseFold(endStates(given)))
                        .name("Fold cases")
                        .uid("fold-cases");
        transitions
                .sinkTo(sink(broker, prefix + "transitions", Transition.class, Transition::caseId))
                .name("Write transitions")
                .uid("write-transitions");
        transitions
                .getSideOutput(CaseFold.CASES)
                .sinkTo(sink(broker, prefix + "cases", CaseRow.class, CaseRow::caseId))
                .name("Write cases")
                .uid("write-cases");
        env.execute(given.get("name", "transitions-datastream"));
    }

    private static KafkaSource<Event> source(ParameterTool given) {
        KafkaSourceBuilder<Event> source =
                KafkaSource.<Event>builder()
                        .setBootstrapServers(given.getRequired("broker"))
                        .setTopics(given.getRequired("topic"))
                        .setGroupId(given.get("group", "transitions-datastream"))
                        .setStartingOffsets(OffsetsInitializer.earliest())
                        .setValueOnlyDeserializer(new EventDecoder())
                        .setProperty("max.poll.records", "5000");
        if (given.getBoolean("until-end", false)) {
            source.setBounded(OffsetsInitializer.latest());
        }
        return source.build();
    }

    private static WatermarkStrategy<Event> watermarks(ParameterTool given) {
        Duration disorder = Duration.ofMillis(given.getLong("disorder", 0));
        return WatermarkStrategy.<Event>forBoundedOutOfOrderness(disorder)
                .withTimestampAssigner((event, recordTime) -> event.millis())
                .withIdleness(Duration.ofSeconds(10));
    }

    private static Set<String> endStates(ParameterTool given) {
        String states = given.get("end-states", "");
        return states.isEmpty() ? Set.of() : Set.of(states.split(","));
    }

    private static <T> KafkaSink<T> sink(String broker, String topic, Class<T> type, Key<T> key) {
        return KafkaSink.<T>builder()
                .setBootstrapServers(broker)
                .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
                .setRecordSerializer(
                        KafkaRecordSerializationSchema.<T>builder()
                                .setTopic(topic)
                                .setKeySerializationSchema(
                                        row -> key.apply(row).getBytes(StandardCharsets.UTF_8))
                                .setValueSerializationSchema(new RowEncoder<>(type))
                                .build())
                .setProperty("compression.type", "lz4")
                .setProperty("linger.ms", "5")
                .setProperty("batch.size", "1000000")
                .build();
    }

    /** The text of a row's key. */
    private interface Key<T> extends Function<T, String>, Serializable {}
}
